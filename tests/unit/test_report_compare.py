"""The page of runs side by side: what it shows, what it leaves out, and that names do nothing."""

import re
from html.parser import HTMLParser

import pytest

from autolabel.report.compare import Changed, Changes, Comparison, Measured, comparison_html
from tests.records import disc, instance, picture, record

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\u202e\x1b[2J"


def measured(name, ap=None, speed=None, on_front=None, **changes):
    fields = {
        "status": {"ok": 2}, "pending": 0, "instances": {"cat": 3}, "dropped": {}, "stages": {}, "truth": None,
        **changes,
    }  # fmt: skip
    return Measured(
        name,
        f"runs/{name}",
        quality={"mask AP": ap, "PQ": None},
        pictures_per_second=speed,
        on_front=on_front,
        **fields,
    )


def changed(tmp_path, name="a.png", **changes):
    where = picture(tmp_path / "a.png")
    before, after = instance(disc(120, 160, 60, 60, 30)), instance(disc(120, 160, 70, 60, 30))
    fields = {"class_before": "cat", "class_after": "dog", "iou": 0.66, "share": 0.1, "reason": "", **changes}
    return Changed(record(name, [before], path=where), before, after, **fields)


def changes(examples, **fields):
    counts = {kind: len(found) for kind, found in examples.items()}
    given = {"classes": {}, "renamed": [], "elsewhere": [], **fields}
    return Changes("a", "b", 0.5, 0.8, 2, 1, 1, counts=counts, examples=examples, **given)


def html(runs, found=None, settings=(), notes=(), measure=None):
    return comparison_html(
        Comparison(runs, measure, notes, settings, found), command="autolabel compare a b", data={}
    )


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def text_of(page):
    body = page[page.index("<body>") :]
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", body, flags=re.DOTALL).split())


def test_every_run_has_its_row_and_measures_that_nobody_has_are_left_out():
    shown = text_of(html([measured("fast", 0.3, 9.0, True), measured("best", 0.5, 1.5, True)], measure="mask AP"))
    assert "fast on it 0.300 9.00 2 3 0" in shown
    assert "best on it 0.500 1.50 2 3 0" in shown
    assert "PQ" not in shown


def test_what_was_not_measured_is_a_dash_and_has_no_point():
    page = html([measured("a", 0.3, 9.0, True), measured("b", 0.5)], measure="mask AP")
    assert "b \u2013 0.500 \u2013 2 3 0" in text_of(page)
    assert sum(tag == "circle" for tag, _ in Tags(page).found) == 1


def test_the_front_is_joined_from_slow_to_fast():
    runs = [measured("a", 0.3, 9.0, True), measured("b", 0.1, 5.0, False), measured("c", 0.5, 1.0, True)]
    (line,) = [a["points"] for tag, a in Tags(html(runs, measure="mask AP")).found if tag == "polyline"]
    xs = [float(point.split(",")[0]) for point in line.split()]
    assert len(xs) == 2
    assert xs == sorted(xs)


def test_without_a_measure_there_is_no_chart():
    assert not [
        tag for tag, _ in Tags(html([measured("a", None, 9.0), measured("b", None, 2.0)])).found if tag == "svg"
    ]


def test_settings_are_shown_side_by_side(tmp_path):
    page = html([measured("a"), measured("b")], settings=[("detect.conf", ["0.2", "0.4"])])
    assert "detect.conf 0.2 0.4" in text_of(page)
    assert "Every setting is the same." in text_of(html([measured("a"), measured("b")]))


def test_both_masks_of_an_object_are_drawn_in_two_colours(tmp_path):
    page = html([measured("a"), measured("b")], changes({"moved": [changed(tmp_path)]}))
    layers = [a for tag, a in Tags(page).found if tag == "img"]
    assert [a.get("class") for a in layers] == [None, "overlay"]
    assert len(set(re.findall(r'fill="(#[0-9a-f]{6})"', page))) == 2
    assert "IoU 0.660" in text_of(page)
    assert "cat → dog" in text_of(page)


def test_a_picture_that_is_gone_leaves_its_reason(tmp_path):
    one = changed(tmp_path)
    (tmp_path / "a.png").unlink()
    page = html([measured("a"), measured("b")], changes({"moved": [one]}))
    assert "missing" in text_of(page)
    assert not [tag for tag, _ in Tags(page).found if tag == "img"]


def test_pictures_that_were_not_compared_are_listed(tmp_path):
    page = html([measured("a"), measured("b")], changes({}, elsewhere=[("only in a", 70, ["x/1.png", "x/2.png"])]))
    assert "only in a: 2 of 70 x/1.png x/2.png" in text_of(page)


@pytest.mark.parametrize(
    "where", ["run", "class", "image", "reason", "setting", "value", "note", "dropped", "elsewhere"]
)
def test_no_name_can_put_anything_into_the_page(where, tmp_path):
    def name(here, otherwise="x"):
        return HOSTILE if here == where else otherwise

    one = changed(tmp_path, name("image", "a.png"), class_after=name("class"), reason=name("reason"))
    runs = [measured(name("run"), dropped={name("dropped"): 1}), measured("b")]
    found = changes(
        {"moved": [one]}, classes={name("class"): {"moved": 1}}, renamed=[(name("class"), "b", 1)],
        elsewhere=[("only in a", 1, [name("elsewhere")])],
    )  # fmt: skip
    page = comparison_html(
        Comparison(runs, None, [name("note")], [(name("setting"), [name("value"), "1"])], found),
        command=f"autolabel compare {name('run')}",
        data={"name": HOSTILE},
    )
    tags = Tags(page).found
    assert sum(tag == "script" for tag, _ in tags) == 2
    assert not [a for _, a in tags if any(key.startswith("on") for key in a)]
    assert all(a["src"].startswith("data:image/") for tag, a in tags if tag == "img")
    assert not any(char in page for char in "\x1b\u202e")
