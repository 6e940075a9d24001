"""`autolabel demo`: the sample photographs, the shipped models, no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from autolabel.app import label, report
from autolabel.app.compose import compose
from autolabel.app.main import DEMO
from autolabel.app.overrides import about
from autolabel.app.run_directory import run_path
from autolabel.core.errors import SourceError

SAMPLES = ("bus.jpg", "zidane.jpg")


def main(arguments: Sequence[str]) -> int:
    """Label the two photographs that the ultralytics package carries, and make the report; more settings may be
    given."""
    directory = run_path(compose("label", about("run", [*DEMO, *arguments])).run)
    code = label.main([str(sample_folder()), *DEMO, *arguments])
    if code == 0 and "--cfg" not in arguments:
        code = report.main([str(directory)])
    return code


def sample_folder() -> Path:
    """The folder of the sample photographs. Raises SourceError when the package does not carry them."""
    # find_spec, not import: ultralytics takes seconds to load and acts on import.
    spec = find_spec("ultralytics")
    folder = Path(spec.origin).parent / "assets" if spec is not None and spec.origin else Path("assets")
    missing = [name for name in SAMPLES if not (folder / name).is_file()]
    if missing:
        raise SourceError(
            f"the installed ultralytics package has no {missing[0]} in {folder}; label your own: autolabel label PATH experiment=offline"
        )
    return folder
