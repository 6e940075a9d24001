"""The laws that every format keeps, whichever is chosen. What its files hold is in the tests of the format."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autolabel.app.build import build_all
from autolabel.app.compose import compose
from autolabel.app.main import choices
from autolabel.core.errors import ExportError, MissingExtra
from autolabel.core.protocols import RoundTrip
from autolabel.core.types import Category, ImageRecord
from autolabel.export.verify import check_files
from tests.rasters import photo
from tests.records import ListReader, disc, failed, instance, record, shapes, tree_bytes

FOR_EYES = {"overlay", "review_list"}
"""Formats without a mask that could be read back."""
DISC = disc(120, 160, 60, 60, 30)


@functools.cache
def built(name: str) -> Any:
    return build_all("export", compose("export", [f"export=[{name}]"]).export)[name]


@pytest.fixture(params=choices()["export"])
def name(request):
    return request.param


@pytest.fixture
def exporter(name):
    try:
        return built(name)
    except MissingExtra as error:
        pytest.skip(str(error))


def a_run(root: Path) -> ListReader:
    """Three pictures with one object, two that share pixels, and none, and one that failed."""
    photos = [
        photo(root, "a.png", [DISC]),
        photo(root, "cam 1/b.jpg", [DISC, disc(120, 160, 80, 60, 30)]),
        photo(root, "cam 1/c.png"),
    ]
    return ListReader([*photos, failed("d.png")])


def unexpected(trip: RoundTrip) -> list[str]:
    return [f"{one.image_id} {one.index}: {one.reason}" for one in trip.deviations if not one.expected]


class Killed:
    """A run whose reading is killed in front of a record; `reads` counts over all passes."""

    def __init__(self, run: ListReader, after: int | None = None) -> None:
        self.categories, self.document, self.reads = run.categories, run.document, 0
        self._run, self._after = run, after

    def records(self) -> Iterator[ImageRecord]:
        for one in self._run.records():
            if self.reads == self._after:
                raise KeyboardInterrupt
            self.reads += 1
            yield one


def test_the_same_records_give_the_same_bytes_and_a_manifest_of_them(tmp_path, exporter):
    run = a_run(tmp_path)
    run = replace(run, items=[*run.items, photo(tmp_path, "all.png", list(shapes().values()))])
    report = exporter.export(run, tmp_path / "one")
    exporter.export(run, tmp_path / "two")
    found = tree_bytes(tmp_path / "one")
    assert found == tree_bytes(tmp_path / "two")
    assert check_files(tmp_path / "one") == []
    assert set(report.files) == {
        path if "/" not in path else f"{'/'.join(path.split('/')[:-1][:2])}/" for path in found
    }


def test_killed_at_any_record_an_export_leaves_the_old_one_and_the_next_leaves_nothing_of_it(tmp_path, exporter):
    run, out = a_run(tmp_path), tmp_path / "out"
    exporter.export(ListReader([photo(tmp_path, "old.png", [DISC])]), out / "format")
    before, whole = tree_bytes(out), Killed(run)
    exporter.export(whole, tmp_path / "fresh")
    for after in range(whole.reads):
        with pytest.raises(KeyboardInterrupt):
            exporter.export(Killed(run, after), out / "format")
        assert tree_bytes(out) == before
        assert [path.name for path in out.iterdir()] == ["format"]
    exporter.export(run, out / "format")
    assert tree_bytes(out / "format") == tree_bytes(tmp_path / "fresh")


@pytest.mark.parametrize("categories", [(), (Category(3, "cat"),)])
def test_an_empty_run_is_an_export_and_is_read_back(tmp_path, exporter, categories):
    run = ListReader([], categories)
    report = exporter.export(run, tmp_path / "out")
    assert (report.images, report.instances) == (0, 0)
    assert check_files(tmp_path / "out") == []
    assert exporter.read_back(run, tmp_path / "out") == RoundTrip(0, ())


def test_images_without_an_object_are_no_loss_and_those_that_failed_are_counted(tmp_path, exporter):
    report = exporter.export(a_run(tmp_path), tmp_path / "out")
    assert report.counts["images_left_out"] == 1
    assert any("failed" in note for note in report.notes)
    assert report.lost == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            lambda one: replace(one, candidates=(instance(DISC, category_id=99),)),
            "class 99, which the run does not",
        ),
        (lambda one: replace(one, info=replace(one.info, width=120, height=160)), "a mask of 'cam 1/b.png' is"),
        (lambda one: replace(one, info=None), "'cam 1/b.png' is labelled but its size is not known"),
    ],
    ids=["class", "mask", "size"],
)
def test_a_record_that_cannot_be_true_is_an_error_and_the_old_export_stays(tmp_path, name, exporter, wrong, words):
    if name == "review_list" and words.startswith("a mask"):
        pytest.skip("it holds no masks")
    run = ListReader([photo(tmp_path, "a.png", [DISC]), photo(tmp_path, "cam 1/b.png", [DISC])])
    exporter.export(run, tmp_path / "out" / "format")
    before = tree_bytes(tmp_path / "out")
    with pytest.raises(ExportError, match=words):
        exporter.export(replace(run, items=[run.items[0], wrong(run.items[1])]), tmp_path / "out" / "format")
    assert tree_bytes(tmp_path / "out") == before


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path, exporter):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match="autolabel did not export"):
        exporter.export(a_run(tmp_path), tmp_path / "out")
    assert tree_bytes(tmp_path / "out") == {"thesis.txt": b"mine"}


def test_every_object_comes_back_or_the_format_says_why_not(tmp_path, name, exporter):
    run = ListReader([photo(tmp_path, f"{shape}.png", [mask]) for shape, mask in shapes().items()])
    run = replace(run, items=[*run.items, photo(tmp_path, "all.jpg", list(shapes().values()))])
    exporter.export(run, tmp_path / "out")
    trip = exporter.read_back(run, tmp_path / "out")
    assert trip.objects == (0 if name in FOR_EYES else 2 * len(shapes()))
    assert unexpected(trip) == []


def test_neither_the_pictures_nor_what_was_written_is_ever_changed(tmp_path, exporter):
    run = a_run(tmp_path)
    odd = Path(run.items[1].path)
    odd.write_bytes(odd.read_bytes() + b"appended")  # such a JPEG is rewritten by the loader of ultralytics
    run = replace(run, items=[run.items[0], record("cam 1/b.jpg", run.items[1].candidates, odd), *run.items[2:]])
    photos = tree_bytes(tmp_path / "photos")
    exporter.export(run, tmp_path / "out")
    before = tree_bytes(tmp_path / "out")
    assert unexpected(exporter.read_back(run, tmp_path / "out")) == []
    assert tree_bytes(tmp_path / "out") == before
    assert tree_bytes(tmp_path / "photos") == photos


def test_names_of_any_characters_lose_no_picture_and_mix_none_up(tmp_path, name, exporter):
    ids = [
        "new\nline.png", "../up.png", "é 日本.png", "stray\udce9.png", ".hidden/x.png", "a.png", "a.png/b.png",
        "images/a.png", "=1+1.png", "a&b<c>.png", "manifest.json/c.png", "x" * 200 + ".png",
    ]  # fmt: skip
    masks = [disc(120, 160, 10 + 12 * n, 60, 5 + n) for n in range(len(ids))]
    items = [
        replace(photo(tmp_path, f"{n}.png", [mask]), image_id=id_)
        for n, (id_, mask) in enumerate(zip(ids, masks, strict=True))
    ]
    names = (
        Category(3, 'dog: "big"\n& <é>'),
        Category(7, "../a b"),
        Category(9, "stray \udce9"),
        Category(12, ""),
    )
    run = ListReader(items, names)
    report = exporter.export(run, tmp_path / "out" / "format")
    assert report.images == len(ids)
    assert check_files(tmp_path / "out" / "format") == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["format"]
    trip = exporter.read_back(run, tmp_path / "out" / "format")
    assert trip.objects == (0 if name in FOR_EYES else len(ids))
    assert unexpected(trip) == []
