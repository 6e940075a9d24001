"""Which picture of the truth is which picture of the run."""

from dataclasses import replace

import pytest

from autolabel.core.errors import SourceError
from autolabel.core.types import ImageRef, Problem
from tests.scenes import CAT, at, judge, ref, run, run_record, truth

OBJECT = [(CAT, at(50, 50))]


def judged(run_ids, truth_ids):
    return judge(run([run_record(i, OBJECT) for i in run_ids]), truth([ref(i, OBJECT) for i in truth_ids]))


def test_image_ids_go_before_file_names():
    found = judged(["x/a.jpg", "y/b.jpg"], ["x/a.jpg", "z/b.jpg"])
    assert (found.images, found.images_without_truth) == (1, 1)


def test_file_names_that_occur_once_join_and_that_is_said():
    found = judged(["photos/a.jpg", "photos/b.jpg"], ["val/b.jpg", "val/c.jpg"])
    assert (found.images, found.all.matched) == (1, 1)
    assert any("by file name" in note for note in found.notes)


def test_a_file_name_with_a_space_is_the_same_as_its_percent_form():
    assert judged(["a/my photo.jpg"], ["JPEGImages/my%20photo.jpg"]).all.matched == 1


@pytest.mark.parametrize(
    ("run_ids", "truth_ids"), [(["p/a.jpg", "q/a.jpg"], ["a.jpg"]), (["p/a.jpg"], ["x/a.jpg", "y/a.jpg"])]
)
def test_a_file_name_that_could_be_several_pictures_is_refused_by_its_name(run_ids, truth_ids):
    with pytest.raises(SourceError, match=r"more than once: 'a\.jpg'"):
        judged(run_ids, truth_ids)


def test_a_truth_of_other_pictures_is_refused_with_a_name_of_each_side():
    with pytest.raises(SourceError, match=r"'a\.jpg'.*'b\.jpg'"):
        judged(["a.jpg"], ["b.jpg"])


def test_pictures_that_the_truth_has_without_labels_are_not_said_to_be_no_part_of_it():
    broken = ImageRef("x/broken.jpg", "broken.jpg", problem=Problem("bad_label", "broken.txt:1: no row"))
    refs = [ref("x/a.jpg", OBJECT), ImageRef("x/b.jpg", "b.jpg"), ImageRef("x/c.jpg", "c.jpg"), broken]
    names = ["a.jpg", "b.jpg", "c.jpg", "broken.jpg", "d.jpg"]
    for prefix in ("x/", ""):  # by image id, by file name
        found = judge(run([run_record(f"{prefix}{name}", OBJECT) for name in names]), truth(refs))
        assert (found.images, found.images_without_truth) == (1, 4)
        for words in ("2 pictures of the run have no labels in the ground truth",
                      "1 picture of the run is not in the ground truth", "ground truth of 1 picture"):  # fmt: skip
            assert any(words in note for note in found.notes), words


def test_a_picture_without_labels_is_not_joined_with_another_one_of_its_file_name():
    with pytest.raises(
        SourceError, match=r"of other pictures \('train/1\.jpg'\).*none of the run's.*'test/1\.jpg'"
    ):
        judge(
            run([run_record("test/1.jpg", OBJECT)]),
            truth([ref("train/1.jpg", OBJECT), ImageRef("test/1.jpg", "1.jpg")]),
        )


def test_a_truth_without_labels_is_refused():
    with pytest.raises(SourceError, match="no labels"):
        judge(run([run_record("a.jpg", OBJECT)]), truth([ImageRef("a.jpg", "a.jpg")]))


def test_the_order_of_the_truth_does_not_matter():
    ids = ["a.jpg", "b.jpg", "c.jpg"]
    forth, back = judged(ids, ids), judged(ids, ids[::-1])
    assert replace(forth, truth="") == replace(back, truth="")
