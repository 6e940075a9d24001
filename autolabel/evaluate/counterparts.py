"""Which picture of one run is which of another where their image ids differ: one folder of pictures, read by itself
and through a label file beside it, gives every picture two ids. Opens no file.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote


@dataclass(frozen=True, slots=True)
class Named:
    """A picture by its id and the digest of its file, which is empty where the file could not be read."""

    image_id: str
    sha256: str


def counterparts(before: Sequence[Named], after: Sequence[Named]) -> list[tuple[str, str]]:
    """Image ids of the pictures that are one, in the order of `before`: those of the same bytes, and of the same file
    name where one of the two has no digest. What could be several pictures is none."""
    found: dict[str, str] = {}
    for key in (_bytes_and_name, _bytes, _name):
        met = set(found.values())
        left = [one for one in before if one.image_id not in found]
        right = [other for other in after if other.image_id not in met]
        found |= {one.image_id: other.image_id for one, other in _once_on_both_sides(left, right, key)}
    return [(one.image_id, found[one.image_id]) for one in before if one.image_id in found]


def file_name(image_id: str) -> str:
    """Without its folders. Pascal VOC's lists have no place for a space, so that exports write `a%20b.jpg`."""
    return unquote(posixpath.basename(image_id))


def _once_on_both_sides(
    before: Sequence[Named], after: Sequence[Named], key: Callable[[Named], Hashable | None]
) -> list[tuple[Named, Named]]:
    counts = [Counter(map(key, side)) for side in (before, after)]
    theirs = {key(other): other for other in after}
    pairs = [(one, theirs[k]) for one in before if (k := key(one)) is not None and all(c[k] == 1 for c in counts)]
    # A file name alone says nothing against the bytes.
    return [
        (one, other) for one, other in pairs if not (one.sha256 and other.sha256 and one.sha256 != other.sha256)
    ]


def _bytes_and_name(one: Named) -> tuple[str, str] | None:
    return (one.sha256, file_name(one.image_id)) if one.sha256 else None


def _bytes(one: Named) -> str | None:
    return one.sha256 or None


def _name(one: Named) -> str:
    return file_name(one.image_id)
