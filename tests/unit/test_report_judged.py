"""The page's tables of what `evaluate` wrote: of many classes and confusions, those that count most."""

from autolabel.report.evaluation import Document
from autolabel.report.judged import CLASSES_SHOWN, _classes, _confusions

MANY = 2100


def test_the_largest_classes_are_shown_and_the_rest_is_said():
    rows = [{"name": f"c{number}", "truth": number, "found": 1} for number in range(MANY)]
    page = _classes(Document({"per_class": rows}))
    assert page.count("<tr") == CLASSES_SHOWN + 1
    assert page.index(f"c{MANY - 1}<") < page.index(f"c{MANY - 2}<") < page.index(f"c{MANY - CLASSES_SHOWN}<")
    assert f"{MANY - CLASSES_SHOWN} classes" in page
    assert "left out" not in _classes(Document({"per_class": rows[:CLASSES_SHOWN]}))


def test_the_strongest_confusion_is_shown_wherever_its_class_stands():
    rows = [{"truth": f"c{number}", "found": f"c{number + 1}", "objects": 1} for number in range(MANY)]
    rows += [{"truth": "last", "found": "first", "objects": 7}, {"truth": None, "found": "c1", "objects": 9}]
    page = _confusions(Document({"confusion": rows}))
    assert page.index("last") < page.index(">7<") < page.index("c0<")
    assert ">9<" not in page


def test_confusions_of_an_earlier_version_are_not_passed_over():
    earlier = {"per_class": [{"name": "cat"}], "confusion": {"names": ["cat"], "matrix": [[1]]}}
    assert "evaluate again" in _confusions(Document(earlier))
    assert "evaluate again" not in _confusions(Document(earlier | {"confusion": []}))
