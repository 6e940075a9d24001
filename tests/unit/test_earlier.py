"""The masks of an earlier run by image id, without holding the run."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from autolabel.app.earlier import EarlierRun
from autolabel.core.errors import ConfigError, StoreError
from autolabel.core.types import ImageInfo, ImageRecord, ImageRef, Instance, Verdict
from autolabel.ops.masks import encode
from autolabel.store.manifest import entries
from autolabel.store.run import open_store

HW = (40, 60)


def kept(name: str, count: int, seed: int = 0) -> ImageRecord:
    """A picture with `count` noisy masks, of which the first is dropped."""
    random = np.random.default_rng(seed)
    some = tuple(Instance(i, 1, (i, 0, i + 5, 9), 0.5, encode(random.random(HW) > 0.5), 0.9) for i in range(count))
    verdicts = tuple(Verdict("min_area: 1 < 2 px" if i == 0 else None) for i in range(count))
    return ImageRecord(name, name, "ok", ImageInfo(HW[1], HW[0]), candidates=some, verdicts=verdicts)


def written(folder, records):
    refs = {record.image_id: ImageRef(record.image_id, record.path) for record in records}
    by_id = {record.image_id: record for record in records}
    folder.mkdir()
    with open_store(folder) as store:
        store.claim({"a": "b"})
        store.sync(entries(refs.values()), root="", unit_size=50)
        for unit in store.pending(refs):
            store.commit(unit, [by_id[ref.image_id] for ref in unit.refs])
    return str(folder)


def test_an_image_has_what_its_run_kept_and_an_unknown_one_nothing(tmp_path):
    records = [kept("a b.png", 3), kept("\udcff/ä.png", 2, 1), kept("none.png", 0)]
    earlier = EarlierRun(run=written(tmp_path / "run", records))
    for record in records:
        boxes, masks = earlier.of(record.image_id, "")
        assert boxes.tolist() == [list(i.box_xyxy) for i in record.instances]
        assert list(masks) == [i.mask for i in record.instances]
    boxes, masks = earlier.of("unknown.png", "")
    assert (boxes.shape, list(masks)) == ((0, 4), [])


@pytest.mark.parametrize(
    ("labelled", "now", "is_same"), [("ab", "ab", True), ("ab", "cd", False), ("", "cd", True), ("ab", "", True)]
)
def test_masks_of_another_file_are_none(labelled, now, is_same, tmp_path):
    record = kept("a.png", 3)
    record = replace(record, info=replace(record.info, sha256=labelled))
    earlier = EarlierRun(run=written(tmp_path / "run", [record, kept("none.png", 0)]))
    assert earlier.has_same("a.png", now) == is_same
    assert len(earlier.of("a.png", now)[1]) == (2 if is_same else 0)
    assert earlier.has_same("none.png", "any")
    assert earlier.has_same("unknown.png", "any")


def test_the_images_with_masks_are_named(tmp_path):
    records = [kept("a b.png", 3), kept("\udcff/ä.png", 2, 1), kept("none.png", 0)]
    assert set(EarlierRun(run=written(tmp_path / "run", records)).image_ids) == {"a b.png", "\udcff/ä.png"}
    assert list(EarlierRun(run=None).image_ids) == []


def test_a_run_is_known_by_what_it_kept_and_not_by_where_it_lies(tmp_path):
    one, other = kept("a.png", 3), kept("a.png", 3, seed=5)
    everything = replace(one, verdicts=(Verdict(),) * 3)
    runs = {"one": one, "again": one, "other": other, "everything": everything}
    seen = {name: EarlierRun(run=written(tmp_path / name, [record])).identity for name, record in runs.items()}
    assert seen["one"] == seen["again"]
    assert len({str(identity) for identity in seen.values()}) == 3
    assert EarlierRun(run=None).identity == {}


def test_masks_are_looked_up_and_not_held(tmp_path):
    records = [kept(f"{i}.png", 3, i) for i in range(400)]
    run = written(tmp_path / "run", records)
    EarlierRun(run=run)  # what is loaded on the first call stays
    tracemalloc.start()
    earlier = EarlierRun(run=run)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(earlier.of("7.png", "")[1]) == 2
    assert held < sum(len(i.mask.counts) for record in records for i in record.instances) / 10


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"prompt\.run"):
        EarlierRun(run=3)
    with pytest.raises(StoreError, match="nowhere"):
        EarlierRun(run=str(tmp_path / "nowhere"))
