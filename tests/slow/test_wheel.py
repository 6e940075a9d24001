"""The installed package: what a wheel carries is enough, away from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fakes import album

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's content in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("autolabel_sam2-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed, cwd, *arguments):
    program = "import sys, autolabel; assert autolabel.__file__.startswith(sys.argv[1]); "
    program += "from autolabel.app.main import main; sys.exit(main(sys.argv[2:]))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-c", program, str(installed), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_it_carries_every_configuration_the_nano_weights_and_the_licence(installed):
    def names(root):
        return {p.relative_to(root).as_posix() for p in root.rglob("*.yaml")}

    assert names(installed / "autolabel" / "configs") == names(ROOT / "configs")
    shipped = {p.name for p in (ROOT / "autolabel/weights/nano").iterdir()}
    assert {p.name for p in (installed / "autolabel/weights/nano").iterdir()} == shipped
    texts = {p.name for p in installed.glob("*.dist-info/licenses/*")}
    assert texts == {"LICENSE", "NOTICE"}


def test_it_labels_away_from_the_checkout(installed, tmp_path):
    album(tmp_path / "in", 3)
    done = run(
        installed,
        tmp_path,
        "label",
        "in",
        "detect=nano",
        "segment=box",
        "export=[coco,yolo,overlay]",
        "offline=true",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/in/export/coco/instances.json").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "runs"]
