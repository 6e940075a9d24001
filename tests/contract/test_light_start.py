"""Starting is light: no model library is loaded before a command needs it, and Hydra stays untouched."""

import subprocess
import sys

import pytest

from autolabel.app.demo import sample_folder

HEAVY = ["torch", "ultralytics", "sam2", "cv2", "torchvision", "hydra", "pycocotools", "ray", "transformers"]


def modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import autolabel",
        "from autolabel.app.main import main; main(['--help'])",
        "from autolabel.app.main import main; main(['evaluate', '--help'])",
        "from autolabel.app.main import main; main(['demo', '--help'])",
        "import autolabel.core.protocols",
    ],
)
def test_no_heavy_package_is_loaded(code):
    assert modules_after(code).isdisjoint(HEAVY)


def test_labelling_on_a_cpu_loads_no_compiler(tmp_path):
    """torchvision brings torch's compiler with it, and takes longer to load than torch."""
    models = ["detect=nano", "segment=nano", "detect.device=cpu", "segment.device=cpu"]
    words = ["label", str(sample_folder()), f"run={tmp_path / 'run'}", *models]
    loaded = modules_after(f"from autolabel.app.main import main; assert main({words}) == 0")
    assert "torch" in loaded
    assert loaded.isdisjoint(["torchvision", "torch._dynamo", "torch._inductor", "sympy", "triton"])


def test_help_names_every_command_and_group(capsys):
    from autolabel.app.choices import choices
    from autolabel.app.main import COMMANDS, main

    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in [*COMMANDS, *choices()])


def test_an_unknown_command_suggests_the_nearest(capsys):
    from autolabel.app.main import main

    assert main(["lable"]) == 1
    assert "did you mean 'label'" in capsys.readouterr().err
