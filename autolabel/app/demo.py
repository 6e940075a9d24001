"""`autolabel demo`: the sample photographs, the shipped models, no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from autolabel.app import label
from autolabel.core.errors import SourceError

SAMPLES = ("bus.jpg", "zidane.jpg")


def main(arguments: Sequence[str]) -> int:
    """Label the two photographs that the ultralytics package carries; more settings may be given."""
    given = any(a.startswith("run=") for a in arguments)
    settings = ["experiment=offline", "export=[coco,yolo,overlay]", *([] if given else ["run=runs/demo"])]
    return label.main([str(sample_folder()), *settings, *arguments])


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
