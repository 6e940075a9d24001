"""One task of a Label Studio export, or of its import format, to shapes. Reads values only, no files.

Label Studio's browser turns pictures upright by their EXIF tag and measures in percent of what it shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from autolabel.core.types import Rle
from autolabel.ops.brush import decode_brush
from autolabel.ops.drawn import (
    BadShape,
    Drawn,
    at,
    brushed,
    ellipse,
    extra_text,
    number,
    outlined,
    picture_size,
    rectangle,
    turned,
)

Json = dict[str, Any]
Results = Literal["annotations", "predictions", "either"]
RESULTS: tuple[str, ...] = get_args(Results)

_SHAPES = ("rectangle", "polygon", "brush", "ellipse")
_REGION = frozenset(
    ("value", "type", "original_width", "original_height", "image_rotation", "from_name", "to_name")
)
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, slots=True, eq=False)
class StudioTask:
    """`url` is the picture as the task names it. `ignored` counts regions and answers that were left alone."""

    url: str
    id: int | None
    size_hw: tuple[int, int] | None = None
    shapes: tuple[Drawn, ...] = ()
    labelled: bool = False
    ignored: Counter[str] = field(default_factory=Counter)
    extra: str = ""
    problem: str = ""


def read_task(task: object, results: Results, data_key: str | None = None) -> StudioTask:
    """The task with one answer's shapes: of the annotations the one marked as ground truth, else the last that was
    not cancelled; of the predictions the last. "either" takes a prediction where nobody annotated.

    The picture is `data[data_key]`; None: `image`, or the only value that ends like a picture. Raises BadShape when
    there is none; a bad region is the task's `problem`. The parts of an object that an export of ours cut into
    polygons have one `group`.
    """
    url, task = task_url(task, data_key), cast("Json", task)
    id_ = task.get("id")
    id_ = id_ if isinstance(id_, int) and not isinstance(id_, bool) and abs(id_) < 1 << 63 else None
    try:
        return _with_shapes(url, id_, task, results)
    except ValueError as e:
        return StudioTask(url, id_, problem=str(e))


def task_url(task: object, data_key: str | None = None) -> str:
    """The picture of a task, as `read_task` finds it; no region is decoded. Raises BadShape."""
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise BadShape("a task needs an object `data`")
    return _picture(task["data"], data_key)


def task_labels(task: object, results: Results) -> set[str]:
    """The labels that `read_task` would find, and those of regions that it would ignore; no region is decoded."""
    try:
        answer = _answer(task, results, Counter()) if isinstance(task, dict) else None
    except BadShape:
        return set()
    regions = answer.get("result") if answer else None
    found: set[str] = set()
    for region in regions if isinstance(regions, list) else []:
        value = region.get("value") if isinstance(region, dict) else None
        kind = str(region.get("type", "")).lower() if isinstance(value, dict) else ""
        if kind == "labels" or any(kind == f"{name}labels" for name in _SHAPES):
            names = value.get(kind) if isinstance(value, dict) else None
            found |= {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
    return found


def _picture(data: Json, key: str | None) -> str:
    """`data[key]`; without a key `data.image`, else the only value that ends like a picture."""
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    wanted = key or "image"
    found = [texts[wanted]] if wanted in texts else [v for v in texts.values() if v.lower().endswith(_PICTURES)]
    if len(found) != 1 or (key is not None and key not in texts):
        raise BadShape(f"`data` must name one picture, as `{wanted}`; it has {sorted(data)[:6]}")
    return found[0]


def _with_shapes(url: str, id_: int | None, task: Json, results: Results) -> StudioTask:
    ignored: Counter[str] = Counter()
    answer = _answer(task, results, ignored)
    other = {key: value for key, value in task["data"].items() if value != url}
    extra = extra_text({"data": other} if other else {})
    if answer is None:
        return StudioTask(url, id_, ignored=ignored, extra=extra)
    regions = answer.get("result")
    if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
        raise BadShape("`result` must be a list of objects")
    sizes = {size for region in regions if (size := _size(region)) is not None}
    if len(sizes) > 1:
        raise BadShape(f"regions of several picture sizes: {sorted(sizes)}")
    names = _labels_by_region(regions)
    shapes = []
    for n, region in enumerate(regions):
        with at(f"result[{n}]"):
            shape = _shape(region, names, ignored)
        if shape is not None:
            shapes.append(shape)
    return StudioTask(url, id_, next(iter(sizes), None), tuple(shapes), True, ignored, extra)


def _answer(task: Json, results: Results, ignored: Counter[str]) -> Json | None:
    annotations = [a for a in _rows(task, "annotations") if not a.get("was_cancelled")]
    ignored["cancelled annotations"] += len(_rows(task, "annotations")) - len(annotations)
    truths = [a for a in annotations if a.get("ground_truth")]
    choices = {"annotations": truths or annotations, "predictions": _rows(task, "predictions")}
    for kind in ("annotations", "predictions") if results == "either" else (results,):
        if choices[kind]:
            all_of_kind = annotations if kind == "annotations" else choices[kind]
            ignored[f"other {kind} of a task"] += len(all_of_kind) - 1
            return choices[kind][-1]
    if results != "annotations":  # those that are left are numbers
        ignored["predictions by id alone"] += len(task.get("predictions") or ())
    return None


def _rows(task: Json, key: str) -> list[Json]:
    rows = task.get(key) or []
    if key == "predictions" and isinstance(rows, list):  # the tool's JSON export names them by id, without content
        rows = [row for row in rows if type(row) is not int]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadShape(f"`{key}` must be a list of objects")
    return rows


def _size(region: Json) -> tuple[int, int] | None:
    return picture_size(region.get("original_height"), region.get("original_width"))


def _labels_by_region(regions: Sequence[Json]) -> Mapping[str, list[str]]:
    """Bare shapes get their label from a second result with the same id."""
    found: dict[str, list[str]] = {}
    for region in regions:
        value = region.get("value")
        names = value.get("labels") if isinstance(value, dict) else None
        if isinstance(names, list) and isinstance(region.get("id"), str):
            found.setdefault(region["id"], [name for name in names if isinstance(name, str)])
    return found


def _shape(region: Json, names: Mapping[str, list[str]], ignored: Counter[str]) -> Drawn | None:
    kind, value = str(region.get("type", "")).lower(), region.get("value")
    shape = next((name for name in _SHAPES if kind in (name, f"{name}labels")), None)
    if shape is None:
        if kind != "labels":  # the second half of a bare shape
            ignored[f"{kind[:40] or 'untyped'} results"] += 1
        return None
    if not isinstance(value, dict):
        raise BadShape("a region needs an object `value`")
    labels = value.get(kind) if kind.endswith("labels") else names.get(str(region.get("id")))
    if not isinstance(labels, list) or not labels or not all(isinstance(name, str) and name for name in labels):
        ignored["regions without a label"] += 1
        return None
    ignored["further labels of a region"] += len(labels) - 1
    if number(region.get("image_rotation", 0), "image_rotation") % 360:
        raise BadShape("the picture was turned in the tool (image_rotation); turn it back there and export again")
    size_hw = _size(region)
    if size_hw is None:
        raise BadShape("a region needs original_width and original_height")
    meta = region.get("meta")
    group = meta.get("object") if isinstance(meta, dict) else None
    more = {
        "extra": _extra(region, value, shape, labels),
        "group": str(group) if isinstance(group, int) else "",
    }
    if shape == "brush":
        return brushed(labels[0], _brush(value, size_hw), **more)
    if shape == "polygon":
        return outlined(labels[0], _polygon(value.get("points"), size_hw), **more)
    return _round_or_square(shape, labels[0], value, size_hw, more)


def _extra(region: Json, value: Json, shape: str, labels: list[str]) -> dict[str, Any]:
    extra = {key: v for key, v in region.items() if key not in _REGION}
    meta = extra.get("meta")
    if isinstance(meta, dict) and meta.get("iscrowd") is True:
        extra["iscrowd"] = True
    if len(labels) > 1:
        extra["labels"] = labels
    if shape in ("ellipse", "rectangle") and (shape == "ellipse" or value.get("rotation")):
        extra["value"] = value
    return extra


def _brush(value: Json, size_hw: tuple[int, int]) -> Rle:
    data = value.get("rle")
    if not isinstance(data, list):
        raise BadShape("a brush needs its `rle`; other forms of it are not read")
    try:
        return decode_brush(bytes(data), size_hw)
    except TypeError as e:
        raise BadShape(f"`rle` must be a list of bytes: {e}") from e


def _polygon(points: object, size_hw: tuple[int, int]) -> tuple[float, ...]:
    if not isinstance(points, list) or any(not isinstance(point, list) or len(point) != 2 for point in points):
        raise BadShape("`points` must be a list of [x, y]")
    h, w = size_hw
    return tuple(
        number(v, "a coordinate") * side / 100 for point in points for v, side in zip(point, (w, h), strict=True)
    )


def _round_or_square(shape: str, label: str, value: Json, size_hw: tuple[int, int], more: dict[str, Any]) -> Drawn:
    h, w = size_hw
    x, y = number(value.get("x"), "x") * w / 100, number(value.get("y"), "y") * h / 100
    rotation = number(value.get("rotation", 0), "rotation")
    if shape == "ellipse":
        radii = (
            number(value.get("radiusX"), "radiusX") * w / 100,
            number(value.get("radiusY"), "radiusY") * h / 100,
        )
        return outlined(label, ellipse((x, y), radii, rotation), **more)
    dx, dy = number(value.get("width"), "width") * w / 100, number(value.get("height"), "height") * h / 100
    corners = (x, y, x + dx, y, x + dx, y + dy, x, y + dy)
    return rectangle(label, turned(corners, (x, y), rotation), **more)  # round the first corner
