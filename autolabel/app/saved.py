"""Which pictures the exports of `autolabel.save` hold, so that none takes the place of labels that it does not have.

An export is a whole data set: writing one replaces the one before. What it holds is noted beside it, for a folder
`coco` in `.coco.pictures`, with the checksum of the export's manifest: a note of another export says nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from autolabel.app.run_directory import write_text
from autolabel.core.errors import ExportError
from autolabel.core.text import printable
from autolabel.core.types import Category, ImageRecord
from autolabel.ops.export_mark import MANIFEST, is_export
from autolabel.ops.files import file_sha256


def require_names_apart(records: Iterable[ImageRecord]) -> None:
    """Raises ExportError when two records have one name, as a run refuses a source that lists one twice: readers of the
    export would take them for one picture."""
    paths: dict[str, str] = {}
    for record in records:
        if record.image_id in paths:
            first, second = printable(paths[record.image_id]), printable(record.path)
            raise ExportError(
                f"two results are called {record.image_id!r}: {first} and {second}; label pictures of several "
                "folders in one call, as a list of paths, which leaves the folders in their names, or save them apart"
            )
        paths[record.image_id] = record.path


def require_same_classes(pictures: Sequence[tuple[str, Sequence[Category]]]) -> None:
    """Raises ExportError when two pictures come with different classes: a data set has one list of them, in which the
    ids of the other picture would mean something else, or nothing."""
    for image_id, categories in pictures:
        first_id, first = pictures[0]
        ours, theirs = ([f"{c.id} {printable(c.name)}" for c in some] for some in (first, categories))
        if ours != theirs:
            raise ExportError(
                f"results have different classes: {printable(first_id)} has {_few(ours, theirs)}; {printable(image_id)} "
                f"has {_few(theirs, ours)}; save them apart, or label them in one call"
            )


def _few(some: Sequence[str], others: Sequence[str]) -> str:
    """Some of those that are not among the others."""
    return ", ".join([one for one in some if one not in others][:5]) or "no others"


def require_none_lost(directory: Path, records: Sequence[ImageRecord]) -> None:
    """Raises ExportError when `directory` holds an export with a picture that is not in `records`, or that cannot be
    told."""
    if not is_export(directory):
        return
    held, given = _noted(directory), _pictures(records)
    if held is None:
        raise ExportError(
            f"{directory} holds an export that does not say whose labels it has (its save was killed, or it is from "
            "elsewhere), and they would be lost; delete it if nobody needs it, or choose another directory"
        )
    if lost := [name for key, name in held.items() if key not in given]:
        what = f"the labels of {printable(lost[0])}" + (f" and {len(lost) - 1} more" if len(lost) > 1 else "")
    else:
        return
    raise ExportError(
        f"{directory} holds {what}, and they would be lost; save all results at once with "
        "autolabel.save(results, directory), or choose another directory"
    )


def note(directory: Path, records: Sequence[ImageRecord]) -> None:
    """Beside the export in `directory`, that it is of these records."""
    content = {"export": file_sha256(directory / MANIFEST), "pictures": _pictures(records)}
    write_text(_beside(directory), json.dumps(content, indent=0) + "\n")


def _noted(directory: Path) -> Mapping[str, str] | None:
    """The pictures of the export in `directory`; None where no note is of it."""
    try:
        content = json.loads(_beside(directory).read_bytes())
        if content["export"] == file_sha256(directory / MANIFEST):
            return {str(key): str(name) for key, name in content["pictures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _pictures(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Names by a digest of where each picture lies: the same names are not the same pictures. Of those with labels, or
    with nothing found; an export has no others."""
    return {
        hashlib.sha256(record.path.encode(errors="surrogateescape")).hexdigest(): record.image_id
        for record in records
        if record.status != "failed"
    }


def _beside(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.pictures")
