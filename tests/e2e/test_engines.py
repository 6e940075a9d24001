"""The demo through every engine there is: the same records and exports, to the last bit."""

import importlib.util
import subprocess
import sys

import pytest

from autolabel.app.choices import choices
from autolabel.app.main import main
from autolabel.store.run import open_reader

HERE = importlib.util.find_spec("ray") is not None
NEEDS = {
    "ray": [
        pytest.mark.slow,
        pytest.mark.skipif(not HERE, reason="Ray is not installed: pip install autolabel-sam2[ray]"),
    ]
}
SMALL = {"ray": ("engine.cpus=2", "engine.object_store_mb=100")}
OTHERS = [pytest.param(name, marks=NEEDS.get(name, [])) for name in choices()["engine"] if name != "inline"]


def demo(run, engine):
    from autolabel.app.demo import sample_folder

    settings = ("experiment=offline", "unit_size=1", "batch_size=1", "export=[coco,yolo]", f"run={run}")
    command = ["label", str(sample_folder()), *settings, f"engine={engine}", *SMALL.get(engine, ())]
    if engine in NEEDS:  # in a process of its own: its library warns, which is an error here
        subprocess.run([sys.executable, "-m", "autolabel.app.main", *command], check=True)
    else:
        assert main(command) == 0
    files = sorted(p for p in (run / "export").rglob("*") if p.is_file())
    with open_reader(run) as reader:
        records = list(reader.records())
    return records, {p.relative_to(run).as_posix(): p.read_bytes() for p in files}


# As each of Ray's actors has: with more threads last digits change.
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return demo(tmp_path_factory.mktemp("inline"), "inline")


@pytest.mark.parametrize("engine", OTHERS)
def test_every_engine_gives_the_records_and_exports_of_the_inline_engine(engine, reference, tmp_path):
    (found_records, found), (records, reference) = demo(tmp_path / "run", engine), reference
    assert found_records == records
    assert all(record.instances for record in records)
    assert found.keys() == reference.keys()
    assert [name for name in found if found[name] != reference[name]] == []
