"""Which images of a run an export lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from autolabel.core.errors import ExportError
from autolabel.core.protocols import RecordReader
from autolabel.core.types import ImageRecord

LISTING_NOTES: dict[str, str] = {
    "images_left_out": "{} [image that failed or was skipped is|images that failed or were skipped are] left out"
}
"""What `labelled` counts."""


def labelled(run: RecordReader, counts: Counter[str] | None = None) -> Iterator[ImageRecord]:
    """The records that an export lists: with labels, or with nothing found. The others are counted."""
    return (record for record in run.records() if is_labelled(record, counts))


def is_labelled(record: ImageRecord, counts: Counter[str] | None = None) -> bool:
    """Whether an export lists it; counted if not. Raises ExportError for a labelled image without a size."""
    if record.status not in ("ok", "empty"):
        if counts is not None:
            counts["images_left_out"] += 1
        return False
    if record.info is None:
        raise ExportError(f"{record.image_id!r} is labelled but its size is not known; label it again")
    return True
