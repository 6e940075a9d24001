"""`autolabel report` as people use it: one file, of any run, that anybody can open."""

import base64
import hashlib
import inspect
import json
import re
from html.parser import HTMLParser

import pytest

from autolabel.app.compose import compose
from autolabel.app.main import main
from autolabel.app.repeat import repeat_command
from autolabel.core.types import ImageRecord
from autolabel.report.evaluation import read_evaluation
from autolabel.report.judged import evaluation_section, headline
from autolabel.report.run_report import RunReport
from tests.records import failed, record
from tests.report_runs import HOSTILE, evaluation, hostile, stored, varied

VOID = {"br", "hr", "img", "input", "meta", "circle", "line", "rect", "polyline"}


class Page(HTMLParser):
    """Elements and texts; raises when what is opened is not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID or tag in ("circle", "rect", "line", "polyline"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag, **attributes):
        return [a for t, a in self.elements if t == tag and attributes.items() <= a.items()]

    def text(self):
        return "\n".join(text for parent, text in self.texts if parent not in ("style", "script"))


def reported(run, *settings):
    assert main(["report", str(run), *settings]) == 0
    return (run / "report" / "index.html").read_text(encoding="utf-8")


def numbers(text):
    return json.loads(re.search(r'id="numbers">(.*?)</script>', text)[1])


@pytest.fixture
def run(tmp_path):
    return stored(tmp_path / "run", varied(tmp_path / "in"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The page of such a run."""
    folder = tmp_path_factory.mktemp("run")
    return reported(stored(folder / "run", varied(folder / "in")))


def test_the_page_shows_the_run_and_its_numbers(text):
    page, counted = Page(text), numbers(text)
    assert (counted["images"], counted["status"]) == (12, {"ok": 7, "empty": 4, "failed": 1})
    assert (counted["objects"], counted["dropped"]) == (7, {"min_area": 3})
    for words in (
        "broken.png",
        "cut short",
        "min_area",
        "Worst objects, by quality",
        "picture 001.png",
        "Box fit",
    ):
        assert words in page.text()
    assert page.all("img", **{"class": "overlay"})


def test_the_page_asks_for_nothing_from_outside(text):
    page = Page(text)
    addresses = [
        a[k] for _, a in page.elements for k in ("src", "href", "action", "data", "poster", "srcset") if k in a
    ]
    assert addresses
    assert all(re.match(r"#[\w-]+$|data:image/webp;base64,[\w+/=]+$", a) for a in addresses)
    assert not {"link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    assert not [a for _, a in page.elements for name in a if name == "style" or name.startswith("on")]


def test_the_policy_lets_the_own_script_and_style_in_and_nothing_else(text):
    policy = Page(text).all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")


def test_the_same_run_gives_the_same_bytes_and_another_seed_other_pictures(run, capsys):
    first, other, again = (reported(run, "report.gallery=2", f"report.seed={seed}") for seed in (1, 2, 1))
    assert first == again != other
    assert f"written    {run / 'report' / 'index.html'}: 12 pictures" in capsys.readouterr().out


def test_hostile_texts_are_texts(tmp_path, text):
    records, categories = hostile(tmp_path)
    plain = Page(text)
    run = stored(tmp_path / "bad", records, categories, config="<b>", versions='{"<i>": "<script>"}')
    evaluation(run, records[0].image_id, HOSTILE[0])
    page = Page(reported(run))
    assert {tag for tag, _ in page.elements} - {tag for tag, _ in plain.elements} <= {"polyline", "circle"}
    assert len(page.all("script")) == len(plain.all("script"))
    assert not [a for _, a in page.elements for name in a if name.startswith("on")]
    assert "<script>window.hit=1;alert(1)</script>" in page.text()
    assert "\\u202egpj.exe" in page.text()
    assert all(c == "\n" or c.isprintable() for c in page.text())


@pytest.mark.parametrize(
    "records",
    [
        [],
        [failed("a"), failed("b")],
        [record("empty")],
        [ImageRecord("s", "s", "skipped", code="no", detail="on purpose")],
    ],
    ids=["no picture", "failures alone", "nothing found", "skipped"],
)
def test_a_run_without_labels_has_a_page(tmp_path, records):
    page = reported(stored(tmp_path / "run", records))
    assert numbers(page)["images"] == len(records)
    Page(page)


def test_a_run_that_never_began_has_a_page(tmp_path):
    from autolabel.store.run import open_store

    (tmp_path / "run").mkdir()
    with open_store(tmp_path / "run"):
        pass
    assert numbers(reported(tmp_path / "run"))["images"] == 0


def test_pictures_that_are_gone_or_changed_are_placeholders_with_the_reason(run, tmp_path, capsys):
    (tmp_path / "in" / "picture 001.png").unlink()
    (tmp_path / "in" / "picture 002.png").write_bytes(b"other")
    page = Page(reported(run))
    assert "missing: No such file or directory" in page.text()
    assert "not_an_image" in page.text()
    assert "2 pictures could not be read" in capsys.readouterr().out


def test_a_run_whose_folder_of_pictures_is_gone_has_a_page(run, tmp_path, capsys):
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    assert not Page(reported(run)).all("img")
    assert re.search(r" pictures, 0 shown, \d+ pictures could not be read", capsys.readouterr().out)


@pytest.mark.parametrize("megabytes", ["0", "0.1", "50"])
def test_pictures_beyond_the_budget_are_left_out_counted_and_noted(run, megabytes, capsys):
    text = reported(run, f"report.max_megabytes={megabytes}")
    assert len(text) < float(megabytes) * 1e6 + 80_000
    full = text.count("left out: the page holds enough pictures")
    shown = len([one for one in Page(text).all("div") if one.get("class") == "shot"])
    left_out = f", {full} left out by report.max_megabytes" if full else ""
    assert f" pictures, {shown} shown{left_out}, " in capsys.readouterr().out
    assert bool(full) == (megabytes != "50")


def test_an_evaluation_is_on_the_page(run):
    evaluation(run)
    text = reported(run)
    for words in ("Evaluation", "Mask AP", "Panoptic quality", "Calibration", "Confusions", "False, random"):
        assert words in Page(text).text()
    assert numbers(text)["evaluation"]["mask_AP"] == 0.5


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": 9}', b"\xff", b"[" * 200_000, b'{"version": 1}',
                                     b'{"version": 1, "segm": [1], "per_class": {"a": 2}, "matched": {"mean_iou": "x"}, "errors": null}'])  # fmt: skip
def test_a_damaged_evaluation_is_a_note_or_dashes(tmp_path, content):
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "evaluation.json").write_bytes(content)
    found = read_evaluation(tmp_path, "", 4, 0)
    Page(evaluation_section(found, {}).body)
    assert set(headline(found).values()) == {None}


def test_a_damaged_configuration_or_summary_stops_nothing(tmp_path):
    run = stored(
        tmp_path / "run", varied(tmp_path / "in"), config="a: &a [1]\nb: *a", versions="[", fingerprint="[]"
    )
    (run / "summary.json").write_text("{")
    Page(reported(run))


def test_long_lists_are_bounded(tmp_path):
    run = stored(tmp_path / "run", [failed(f"{i:04}") for i in range(300)])
    text = reported(run, "report.max_failures=100")
    assert "The first 100 of 300" in Page(text).text()
    assert Page(text).all("div", **{"data-rows": "20"})


@pytest.mark.parametrize("setting", ["report.gallery=-1", "report.similar_bits=17", "report.seed=x", "report.max_megabytes=nan",
                                     "report.max_side=true", "report.nothing=1"])  # fmt: skip
def test_a_wrong_setting_is_one_line_and_leaves_the_page(tmp_path, setting, capsys):
    run = stored(tmp_path / "run", [])
    (run / "report").mkdir()
    (run / "report" / "index.html").write_text("before")
    assert main(["report", str(run), setting]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (run / "report" / "index.html").read_text() == "before"


@pytest.mark.parametrize("arguments", [["nowhere"], [], ["-m", "."], ["."]])
def test_a_mistake_is_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_settings_are_the_keywords():
    node = compose("report", []).report
    keywords = set(inspect.signature(RunReport.__init__).parameters) - {"self"}
    assert set(node) - {"_target_"} == keywords


@pytest.mark.parametrize(
    "settings",
    [["experiment=offline", "detect.classes=[person,'a b']", "export=[coco]"], ["experiment=quality", "refine.islands=null"],
     ["source=coco", "detect=labels", "refine=none", "export=[]"], ["segment=sam2_custom", "segment.weights='/a b/c.pt'",
      "segment.architecture=x.yaml", "batch_size=2", "offline=true"]],
)  # fmt: skip
def test_the_command_on_the_page_makes_the_configuration_again(settings):
    import shlex

    from omegaconf import OmegaConf

    wanted = OmegaConf.to_container(compose("label", ["source.path=my photos", *settings]))
    command, exact = repeat_command(wanted)
    assert exact
    program, job, path, *overrides = shlex.split(command)
    assert (program, job, path) == ("autolabel", "label", "my photos")
    assert OmegaConf.to_container(compose("label", ["source.path=my photos", *overrides])) == wanted


def test_settings_of_another_version_give_the_nearest_command():
    command, exact = repeat_command({"source": {"path": "x"}, "detect": {"gone": 1}})
    assert command.startswith("autolabel label x")
    assert not exact
