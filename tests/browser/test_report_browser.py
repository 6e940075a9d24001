"""The report in a real browser: opens from disk, runs nothing of anybody else's, fits a phone, works by keyboard."""

import pytest

from autolabel.app.main import main
from tests.browser.driver import MISSING, browser
from tests.report_runs import HOSTILE, evaluation, hostile, stored, varied

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

SIZES = [(360, True), (390, True), (768, False), (1440, False)]


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    run = stored(folder / "run", varied(folder / "in", 40))
    evaluation(run)
    assert main(["report", str(run), "report.max_failures=30"]) == 0
    return run / "report" / "index.html"


@pytest.fixture(scope="module")
def bad_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    records, categories = hostile(folder)
    run = stored(folder / "run", records, categories, config=HOSTILE[0], versions='{"<img src=x>": "</script>"}')
    evaluation(run, records[0].image_id, HOSTILE[1])
    assert main(["report", str(run)]) == 0
    return run / "report" / "index.html"


def test_hostile_names_run_nothing_make_nothing_and_ask_for_nothing(page, bad_report, report):
    page.requests(), page.console()
    page.open(report)
    known = set(page.run("return [...document.querySelectorAll('*')].map(e => e.localName)"))
    page.requests(), page.console()
    page.open(bad_report)
    assert page.dialog() is None
    assert page.run("return window.hit === undefined")
    assert set(page.run("return [...document.querySelectorAll('*')].map(e => e.localName)")) <= known
    handlers = "return [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    assert page.run(handlers) == []
    assert "<script>window.hit=1;alert(1)</script>" in page.run("return document.body.textContent")
    for shot in range(6):  # the script copies captions into the large view
        page.run(
            "const all = document.querySelectorAll('.gallery [role=button]'); all[arguments[0] % all.length].click()",
            shot,
        )
        assert page.run("return document.querySelector('dialog').open && window.hit === undefined")
    assert page.dialog() is None
    assert page.requests() == [bad_report.resolve().as_uri()]
    assert page.console() == []


def test_the_policy_stops_what_gets_in_all_the_same(page, report):
    """The second wall: markup that somehow got into the page can neither run nor load."""
    page.open(report)
    page.requests(), page.console()
    page.run("""
        const s = document.createElement('script'); s.textContent = 'window.hit = 1'; document.body.append(s);
        const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i);
        document.body.insertAdjacentHTML('beforeend', '<p onclick="window.hit = 2" id="bad">x</p>');
        document.getElementById('bad').click();
    """)
    assert page.run("return window.hit === undefined")
    assert page.requests() == []
    assert any("Content Security Policy" in line for line in page.console())


@pytest.mark.parametrize(("width", "mobile"), SIZES)
def test_no_screen_has_to_be_scrolled_sideways(page, report, bad_report, width, mobile):
    for path in (report, bad_report):
        page.look(width, 800, mobile=mobile)
        page.open(path)
        wide = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1]


def test_the_key_and_the_box_switch_all_masks_at_once(page, report):
    page.look(1200)
    page.open(report)
    hidden = "return [...document.querySelectorAll('.overlay')].filter(e => getComputedStyle(e).visibility === 'hidden').length"
    count = page.run("return document.querySelectorAll('.overlay').length")
    assert count > 10
    assert page.run(hidden) == 0
    page.press("m")
    assert page.run(hidden) == count
    page.run("document.getElementById('masks').click()")
    assert page.run(hidden) == 0


def test_a_picture_opens_large_by_keyboard_and_gives_the_focus_back(page, report):
    page.open(report)
    page.run(
        "document.querySelector('.gallery .card:nth-child(2)').previousSibling.querySelector('[role=button]').focus()"
    )
    page.press("\ue007")  # Enter
    first = page.run("return document.querySelector('dialog[open] figcaption').textContent")
    page.press("\ue014")  # right
    assert page.run("return document.querySelector('dialog[open] figcaption').textContent") != first
    page.press("\ue00c")  # Escape
    assert (
        page.run("return document.querySelector('dialog[open]') === null && document.activeElement.className")
        == "shot"
    )


def test_long_tables_are_paged(page, tmp_path):
    from tests.records import failed

    run = stored(tmp_path / "run", [failed(f"{i:03}") for i in range(45)])
    main(["report", str(run)])
    page.open(run / "report" / "index.html")
    shown = "return [...document.querySelectorAll('.table[data-rows] tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].textContent)"
    assert page.run(shown) == [f"{i:03}" for i in range(20)]
    for _ in range(2):
        page.run("[...document.querySelectorAll('.pager button')].at(-1).click()")
    assert page.run(shown) == [f"{i:03}" for i in range(40, 45)]


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_against_its_ground(page, report, dark):
    """WCAG AA: 4.5 to 1, for all texts but those on pictures."""
    page.look(1200, dark=dark)
    page.open(report)
    assert page.run(CONTRAST) == []


CONTRAST = """
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b; };
const ground = e => { for (let at = e; at; at = at.parentElement) { const c = getComputedStyle(at).backgroundColor;
  if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
const poor = new Set();
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) { const e = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim() || ['SCRIPT', 'STYLE', 'title'].includes(e.nodeName) || e.closest('dialog, :disabled')) continue;
  const style = getComputedStyle(e), ink = e.closest('svg') ? style.fill : style.color;
  const [a, b] = [light(ink), light(ground(e))], ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) poor.add(`${e.nodeName}.${e.className.baseVal ?? e.className} ${ink} on ${ground(e)}: ${ratio.toFixed(2)}`); }
return [...poor];
"""
