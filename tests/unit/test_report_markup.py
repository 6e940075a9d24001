"""Nothing that comes in as text can become markup, and no chart breaks on strange numbers."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolabel.report.charts import (
    Bin,
    Point,
    bars_svg,
    calibration_svg,
    histogram_svg,
    meter_svg,
    nice_step,
    scatter_svg,
)
from autolabel.report.markup import (
    LONGEST_TEXT,
    Html,
    element,
    escape,
    escape_lines,
    json_block,
    number,
)

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title>", "\u202egpj.exe", "a\0b\x1b[2J",
           "\udcff\udc80", "'", "&lt;", "javascript:alert(1)", "\u2028", "x" * 5000, "</style><b>", "]]>", "<!--"]  # fmt: skip


class Seen(HTMLParser):
    """What a parser makes of some markup."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_comes_back_as_one_text_and_no_element(text):
    seen = Seen(element("p", text, title=text))
    assert [tag for tag, _ in seen.tags] == ["p"]
    assert set(seen.tags[0][1]) == {"title"}
    assert seen.text == seen.tags[0][1]["title"]
    assert seen.text.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_inert_everywhere(text):
    for markup in (
        element("td", text),
        element("td", class_=text),
        escape(text),
        escape_lines(text),
        json_block("k", text),
    ):
        tags = [tag for tag, _ in Seen(markup).tags]
        assert tags in ([], ["td"], ["script"])
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", markup)


def test_long_text_is_cut():
    assert len(escape("x" * 10_000)) == LONGEST_TEXT


def test_text_is_escaped_and_markup_is_not():
    assert element("p", "a < b", Html("<b>c</b>"), 1234, 0.5, None) == "<p>a &lt; b<b>c</b>1,2340.500\u2013</p>"


DATA = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@settings(max_examples=60)
@given(DATA)
def test_data_comes_back_whole_and_never_ends_its_block(data):
    block = json_block("numbers", data)
    inside = block.removeprefix('<script type="application/json" id="numbers">').removesuffix("</script>")
    assert "<" not in inside
    assert json.loads(inside) == data


@pytest.mark.parametrize(("name", "value"), [("style", "color:red"), ("onclick", "f()"), ("href", "https://x.example/"),
                                             ("src", "x.png"), ("href", "javascript:f()"), ("src", "data:text/html,x")])  # fmt: skip
def test_what_the_policy_refuses_cannot_be_written(name, value):
    with pytest.raises(ValueError, match=name):
        element("a", **{name: value})


def test_numbers_are_written_for_people():
    assert [number(None), number(1234567), number(0.12345), number(2.5, 1)] == [
        "\u2013",
        "1,234,567",
        "0.123",
        "2.5",
    ]


CHARTS = {
    "histogram": histogram_svg([0, 5, 123456], [0, 1, 2, 3], label="a <b>", x_label="x"),
    "empty histogram": histogram_svg([0, 0], [0, 1, 2], label="empty"),
    "no bins": histogram_svg([], [0], label="none"),
    "bars": bars_svg([("<script>", 3.0), ("b", 0.0)], label="bars"),
    "no bars": bars_svg([], label="bars"),
    "scatter": scatter_svg([Point(1, 2, "<a>"), Point(-1e9, 1e-9, series=11)], label="s", front=[Point(1, 2), Point(2, 1)]),
    "one point": scatter_svg([Point(3, 3)], label="s"),
    "no point": scatter_svg([], label="s"),
    "calibration": calibration_svg([Bin(0.1, 0.2, 3), Bin(0.9, 0.8, 0)], label="c"),
    "no bins to calibrate": calibration_svg([], label="c"),
    "meter": meter_svg(7.0, "over"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_wellformed_and_says_what_it_shows(name):
    root = ElementTree.fromstring(CHARTS[name].replace("&#x27;", "'"))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"]
    numbers = [
        v for e in root.iter() for k, v in e.attrib.items() if k in ("x", "y", "width", "height", "cx", "cy", "r")
    ]
    assert all(float(v.removesuffix("%")) >= 0 for v in numbers)


def test_the_bars_of_a_histogram_have_the_heights_of_their_counts():
    svg = ElementTree.fromstring(histogram_svg([1, 2, 4], [0, 1, 2, 3], label="h"))
    heights = [float(e.attrib["height"]) for e in svg.iter("rect")]
    assert [round(h / heights[0], 2) for h in heights] == [1, 2, 4]


@given(st.floats(1e-6, 1e12))
def test_steps_are_round_and_reach_far_enough(least):
    step = nice_step(least)
    assert least * (1 - 1e-6) <= step <= least * 2.6
    assert f"{step:.1e}"[:3] in ("1.0", "2.0", "2.5", "5.0")
