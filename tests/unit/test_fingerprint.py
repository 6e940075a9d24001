"""What decides whether a run may be continued."""

from autolabel.app.fingerprint import fingerprint
from autolabel.core.types import Category

PLAIN = {
    "labels": {"rename": None},
    "images": {"max_pixels": 9},
    "refine": {},
    "unit_size": 2,
    "batch_size": 1,
    "batch_mb": 1,
}
IDENTITIES = {"detect": {"weights": "sha256 ab"}}


def made(**detect):
    detector = {"_target_": "a.Detector", "weights": "here.pt", "device": "cuda:1", "conf": 0.5, **detect}
    return fingerprint({**PLAIN, "detect": detector}, IDENTITIES, [], [Category(1, "cat")])


def test_weights_and_devices_count_by_what_they_are_and_not_by_where():
    assert made() == made(weights="there.pt", device="cpu", box_prior="there.json")
    assert made()["detect (weights)"] == "sha256 ab"
    assert made() != made(conf=0.6)


def test_an_entry_of_a_map_counts_whatever_its_class_is_called():
    before, after = (made(ontology={"device": phrase}) for phrase in ("mobile phone", "laptop"))
    assert {key for key in before if before[key] != after[key]} == {"detect.ontology.device"}
