"""Which picture of one run is which of another where their image ids differ."""

import pytest

from autolabel.evaluate.counterparts import Named, counterparts


def named(**files):
    return [Named(image_id.replace("__", "/"), sha256) for image_id, sha256 in files.items()]


@pytest.mark.parametrize(
    ("before", "after", "pairs"),
    [
        ({}, {}, []),
        ({"a": "1"}, {}, []),
        ({"a": "1", "b": "2"}, {"images__b": "2", "images__a": "1"}, [("a", "images/a"), ("b", "images/b")]),
        ({"a": "1"}, {"z": "1"}, [("a", "z")]),
        ({"a": "1", "b": "1"}, {"x__b": "1", "x__a": "1"}, [("a", "x/a"), ("b", "x/b")]),
        ({"a": "1", "b": "1"}, {"y": "1", "z": "1"}, []),
        ({"a": "1"}, {"x__a": "2"}, []),
        ({"a": ""}, {"x__a": "2"}, [("a", "x/a")]),
        ({"a": ""}, {"x__a": "", "y__a": ""}, []),
    ],
    ids=["none", "of one side", "same names", "another name", "copies by name", "copies", "other bytes", "unread",
         "a name twice"],
)  # fmt: skip
def test_bytes_go_before_names_and_what_could_be_several_is_none(before, after, pairs):
    assert counterparts(named(**before), named(**after)) == pairs
    assert sorted(counterparts(named(**after), named(**before))) == sorted((b, a) for a, b in pairs)
