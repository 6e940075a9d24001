"""`labeler=sam3` on Ray: the records and exports of the inline engine."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import hf_models
from tests.e2e.test_one_step import WORDS, records
from tests.e2e.test_runs import tree
from tests.fakes import album

pytest.importorskip("ray", reason="Ray is not installed: pip install autolabel-sam2[ray]")


@pytest.mark.slow
def test_a_labeler_of_one_step_gives_the_same_on_ray(tmp_path, monkeypatch):
    hf_models.needs_transformers()
    weights = hf_models.sam3(tmp_path / "sam 3")
    album(tmp_path / "in", 5)
    monkeypatch.chdir(tmp_path)

    def label(run, *settings):  # in a process of its own: Ray warns, which is an error here
        model = ["labeler=sam3", f"labeler.weights={weights}", "labeler.conf=0.2", "labeler.max_det=9", WORDS]
        own = ["offline=true", "unit_size=2", "batch_size=2", "refine=none", f"run={run}"]
        subprocess.run(
            [sys.executable, "-m", "autolabel.app.main", "label", "in", *own, *model, *settings], check=True
        )

    label("inline", "engine=inline")
    label("ray", "engine=ray", "engine.cpus=2", "engine.object_store_mb=100")
    assert records("ray") == records("inline")
    assert tree(Path("ray/export")) == tree(Path("inline/export"))
    assert any(record.instances for record in records("ray"))
