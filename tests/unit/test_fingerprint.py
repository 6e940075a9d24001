"""What decides whether a run may be continued."""

from types import SimpleNamespace

import pytest

from autolabel.app.fingerprint import fingerprint
from autolabel.app.refiners import refine_entries
from autolabel.core.errors import ConfigError
from autolabel.core.types import Category

PLAIN = {
    "labels": {"rename": None},
    "images": {"max_pixels": 9},
    "refine": {},
    "unit_size": 2,
    "batch_size": 1,
    "batch_mb": 1,
}
IDENTITY = {"weights": "sha256 ab", "device": "cpu", "box_prior": ""}


def made(identity=IDENTITY, **detect):
    detector = {"_target_": "a.Detector", "weights": "here.pt", "device": "cuda:1", "conf": 0.5, **detect}
    return fingerprint({**PLAIN, "detect": detector}, {"detect": identity}, [], [Category(1, "cat")])


def differing(before, after):
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def test_weights_and_devices_count_by_what_they_are_and_not_by_where():
    assert made() == made(weights="there.pt", device="cpu", box_prior="there.json")
    assert made()["detect (weights)"] == "sha256 ab"
    assert made() != made(conf=0.6)


@pytest.mark.parametrize("name", ["weights", "device", "box_prior", "file", "run"])
def test_a_place_of_which_the_identity_says_nothing_counts_as_it_is_written(name):
    identities = {}, {"model": "x"}, {f"{name}s": "x"}, {"model": name}
    for identity in identities:
        assert differing(*(made(identity, **{name: f"{place}.pt"}) for place in "ab")) == {f"detect.{name}"}
    for identity in ({name: "x"}, {f"{name} sha256": "x"}, {name: ""}):
        assert made(identity, **{name: "a.pt"}) == made(identity, **{name: "b.pt"})


def test_an_entry_tells_of_one_place_alone_and_of_that_in_a_component_within():
    def tiled(outer, inner):
        return made(weights=outer, inner={"_target_": "a.Inner", "weights": inner})

    assert differing(tiled("a.pt", "b.pt"), tiled("c.pt", "b.pt")) == {"detect.weights"}
    assert tiled("a.pt", "a.pt") == tiled("b.pt", "b.pt")  # `earlier.run: ${prompt.run}`
    wrapped = [{"_target_": "a.Inner", "weights": place} for place in ("a.pt", "b.pt")]
    pair = [
        fingerprint({**PLAIN, "detect": {"_target_": "a.Tiles", "inner": one}}, {"detect": IDENTITY}, [], [])
        for one in wrapped
    ]
    assert pair[0] == pair[1]


def test_a_refiner_says_what_is_at_its_own_places_and_at_no_others():
    def refined(mine, its):
        refine = {
            "off": None,
            "mine": {"_target_": "a.Mine", "calibration": mine},
            "its": {"_target_": "a.Its", "calibration": its},
        }
        refiners = [SimpleNamespace(), SimpleNamespace(identity={"calibration": "sha256 cd"})]
        return fingerprint({**PLAIN, "detect": {}, "refine": refine}, {"detect": {}}, refiners, [])

    assert refined("a.json", "a.json") == refined("a.json", "b.json")
    assert differing(refined("a.json", "a.json"), refined("b.json", "a.json")) == {"refine.mine.calibration"}
    assert refined("a.json", "a.json")["refine (calibration)"] == "sha256 cd"


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        ({"size": (640, 640)}, r"must hold texts by name, got 'size': \(640, 640\)"),
        ({"version": 3}, r"got 'version': 3; give str"),
        ({1: "a"}, r"got 1: 'a'"),
        ({"weights": None}, r"got 'weights': None"),
        (None, "must be a mapping of texts, got None"),
    ],
)
def test_an_identity_that_a_run_would_not_give_back_is_refused_before_it_labels(identity, words):
    with pytest.raises(ConfigError, match=rf"^detect: the identity of a\.Detector .*{words}"):
        made(identity)
    with pytest.raises(ConfigError, match=rf"^refine\.mine: the identity of a\.Mine .*{words}"):
        refine_entries({"mine": {"_target_": "a.Mine"}}, [SimpleNamespace(identity=identity)])


def test_an_entry_of_a_map_counts_whatever_its_class_is_called():
    before, after = (made(ontology={"device": phrase}) for phrase in ("mobile phone", "laptop"))
    assert differing(before, after) == {"detect.ontology.device"}
