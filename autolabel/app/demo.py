"""`autolabel demo`: the sample photographs, the shipped models, no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from autolabel.app import label, report
from autolabel.core.errors import SourceError

SAMPLES = ("bus.jpg", "zidane.jpg")


def main(arguments: Sequence[str]) -> int:
    """Label the two photographs that the ultralytics package carries, and make the report; more settings may be
    given."""
    runs = [a.partition("=")[2] for a in arguments if a.startswith("run=")] or ["runs/demo"]
    settings = ["experiment=offline", "export=[coco,yolo,overlay]", f"run={runs[-1]}"]
    others = [a for a in arguments if not a.startswith("run=")]
    code = label.main([str(sample_folder()), *settings, *others])
    if code == 0 and "--cfg" not in others:
        code = report.main([runs[-1]])
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
