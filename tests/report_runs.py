"""Runs on disk for the tests of pages: any records, without labelling anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from autolabel.core.types import Category, ImageRecord, ImageRef, Verdict
from autolabel.store.manifest import entries
from autolabel.store.run import categories_to, open_store
from tests.records import CATEGORIES, disc, instance, picture, record

HOSTILE = (
    "<script>window.hit=1;alert(1)</script>",
    '"><img src=x onerror="window.hit=1;alert(1)">',
    "</script><script>window.hit=1</script>",
    "</title></style><svg onload=alert(1)>",
    "' onmouseover='window.hit=1",
    "\u202egpj.exe",
    "\x1b[2Ja\tb\nc",
    "\udcff\udcfe",
    "javascript:window.hit=1",
    "<iframe src=http://192.0.2.1/></iframe>",
    "{{7*7}}${7*7}",
    "n" * 3000,
)


def stored(
    directory: Path,
    records: Sequence[ImageRecord],
    categories: Iterable[Category] = CATEGORIES,
    unit_size: int = 64,
    **meta: str,
) -> Path:
    """A finished run of these records."""
    directory.mkdir(parents=True, exist_ok=True)
    by_id = {r.image_id: r for r in records}
    refs = {r.image_id: ImageRef(r.image_id, r.path) for r in records}
    with open_store(directory) as store:
        store.claim({"detect.conf": "0.25", "segment (weights)": "ab" * 32})
        store.sync(entries(refs.values()), root="", unit_size=unit_size)
        store.set_meta(categories=categories_to(tuple(categories)), **meta)
        for unit in store.pending(refs):
            store.commit(unit, [by_id[ref.image_id] for ref in unit.refs])
    return directory


def varied(folder: Path, count: int = 12) -> list[ImageRecord]:
    """Pictures with zero to two objects, some of them dropped; the last one failed."""
    made = []
    for i in range(count - 1):
        path = picture(folder / f"picture {i:03}.png", seed=i)
        objects = [
            instance(
                disc(120, 160, 40 + 60 * k, 60, 12 + i), k, quality=0.5 + 0.04 * i, detector_score=0.3 + 0.05 * i
            )
            for k in range(i % 3)
        ]
        one = record(path.name, objects, path, split="train" if i % 2 else "val")
        if len(objects) == 2:
            one = replace(one, verdicts=(Verdict(), Verdict("min_area: 9 < 16 px")))
        made.append(one)
    return [
        *made,
        ImageRecord("broken.png", str(folder / "broken.png"), "failed", code="corrupt", detail="cut short"),
    ]


def hostile(folder: Path) -> tuple[list[ImageRecord], tuple[Category, ...]]:
    """Every hostile text as a picture's name, a class, a failure's detail, a drop reason and a split."""
    path = picture(folder / "p.png")
    categories = tuple(Category(i + 1, text) for i, text in enumerate(HOSTILE))
    made = []
    for i, text in enumerate(HOSTILE):
        kept = instance(disc(120, 160, 60, 60, 30), 0, category_id=i + 1)
        lost = instance(disc(120, 160, 100, 60, 10), 1, category_id=i + 1)
        one = record(f"{text}/{i}", [kept, lost], path, split=text.encode("utf-8", "replace").decode())
        reason = text.encode("utf-8", "replace").decode()
        made.append(replace(one, verdicts=(Verdict(), Verdict(reason))))
        made.append(ImageRecord(f"failed {text}", "x", "failed", code="corrupt", detail=reason))
        # A picture that is gone, so that its reason is on the page.
        made.append(record(f"gone {text}", [kept], path, split=None))
        made[-1] = replace(made[-1], path=str(folder / f"gone {i}.png"))
    return made, categories


def evaluation(run: Path, image_id: str = "picture 001.png", name: str = "cat") -> None:
    """What `autolabel evaluate` writes, in small."""
    ap = dict.fromkeys(
        ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"), 0.5
    )
    row = {"truth": 4, "found": 5, "matched": 3, "mean_iou": 0.8, "precision": 0.6, "recall": 0.75, "f1": 0.67,
           "boundary_iou": 0.7, "boundary_f": None, "median_iou": 0.81}  # fmt: skip
    bins = [
        {"low": i / 10, "high": i / 10 + 0.1, "count": i, "mean_score": i / 10 + 0.05, "mean_iou": i / 10}
        for i in range(10)
    ]
    found = {
        "version": 2, "truth": name, "images": 11, "images_without_truth": 0,
        "matching": {"iou": 0.5, "by_class": True, "score": "detector"}, "objects": row, "segm": ap, "bbox": ap,
        "matched": row, "per_class": [{"name": name, "AP": 0.5, "AP50": None, **row}], "per_size": {"small": row},
        "confusion": [
            {"truth": name, "found": name, "objects": 1}, {"truth": name, "found": "dog", "objects": 2},
            {"truth": "dog", "found": "dog", "objects": 1}, {"truth": None, "found": name, "objects": 1},
        ],
        "errors": {"missed": 1, "false": 2, "wrong_class": 0, "poor_mask": 1, "duplicate": 0},
        "panoptic": {"pq": 0.4, "sq": 0.8, "rq": 0.5, "per_class": []},
        "ranking": {"quality": {"aurc": 0.1, "spearman": 0.3, "bins": bins}}, "notes": [name],
    }  # fmt: skip
    (run / "evaluate").mkdir()
    (run / "evaluate" / "evaluation.json").write_text(json.dumps(found))
    line = {
        "image_id": image_id,
        "kind": "false",
        "index": 0,
        "iou": 0.1,
        "class_found": name,
        "class_truth": None,
    }
    (run / "evaluate" / "objects.jsonl").write_text(json.dumps(line) + "\nno json\n")
