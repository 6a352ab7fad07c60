"""The pages of `bench site` in a real Chromium, opened from files: what people do with them, and what must not be."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark import leaderboard, records
from benchmark.leaderboard import compared, comparison, scores
from benchmark.site import build
from benchmark.site.build import Request
from benchmark.site.scenarios import Samples

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (dependency group `browser`)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, e.g. Debian's package `chromium`"),
]

TESTS = Path(__file__).parents[1]
TEMPLATE = records.plain(records.read(TESTS / "golden" / "records" / "v1.json"))
TEMPLATE["config"]["track"] = {
    group: TEMPLATE["config"]["effective"][group] for group in ("scenario", "method", "engine")
}
EVIL = '</script><script>alert(1)</script><img src=x onerror=alert(2)>" onmouseover="alert(3)'
METHODS = {"alpha": (), "beta": ("memory",), "gamma": ("memory", "boundaries"), "a name that is longer than any": ()}
WIDE, NARROW = 1400, 390
PAGES = ("index.html", "compare.html", "tables", "methods", "scenarios")


def run(method: str, seed: int, shift: float, **changes: Any) -> records.Record:
    """A record whose accuracies are those of the golden one, lowered by a shift and a little by its seed."""
    about = {**TEMPLATE["method"], "name": method, "control": method == "beta", "uses": list(METHODS.get(method, ()))}
    lower = shift + 0.01 * seed
    accuracy = [[None if cell is None else max(0.0, cell - lower) for cell in row] for row in TEMPLATE["accuracy"]]
    metrics = {**TEMPLATE["metrics"], "final_avg_acc": max(0.0, TEMPLATE["metrics"]["final_avg_acc"] - lower)}
    content = {**TEMPLATE, "method": about, "seeds": dict.fromkeys(TEMPLATE["seeds"], seed), "accuracy": accuracy}
    made = {**TEMPLATE["provenance"], "git_commit": "0123456789abcdef"}
    content |= {"metrics": metrics, "provenance": made, **changes}
    content["run_id"] = hashlib.sha256(repr((method, seed)).encode()).hexdigest()[:16]
    return records.parse(content)


@pytest.fixture(scope="session")
def runs() -> list[records.Record]:
    """Four methods of three seeds, and one that is evil wherever it has a word."""
    found = [run(name, seed, 0.1 * place) for place, name in enumerate(METHODS) for seed in range(3)]
    made = {**TEMPLATE["provenance"], "git_commit": EVIL}
    return [*found, run(EVIL, 0, 0.5, provenance=made, warnings=[EVIL])]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, runs: list[records.Record]) -> Path:
    folder = tmp_path_factory.mktemp("site")
    text = "\n".join(["a text", EVIL, "x" * 300])
    look: Callable[[records.Record], Samples] = lambda run: Samples(scenario=run.scenario.name, text=text)  # noqa: E731
    request = Request(records=runs, installed=False, kinds=("accuracy",), look=look)
    build.write(folder, build.build(request))
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    # Root may not use the sandbox, as in a container.
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


class Opened:
    """A tab, with everything that it asked for and complained of."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": WIDE, "height": 900}, **context})
        self.context.set_default_timeout(10_000)  # milliseconds
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.wrong: list[str] = []
        network = self.context.new_cdp_session(self.page)
        network.send("Network.enable")
        network.on("Network.requestWillBeSent", lambda event: self.asked.append(event["request"]["url"]))
        self.page.on("console", lambda message: self._told(message))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))

    def _told(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def go(self, path: Path, anchor: str = "") -> Any:
        self.page.goto(f"{path.as_uri()}{anchor}")
        return self.page

    def check(self) -> None:
        assert self.wrong == []
        assert self.asked
        assert {url.partition(":")[0] for url in self.asked} == {"file"}


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens tabs. Whatever a test does in one: no error in the console, no request that leaves the machine."""
    opened: list[Opened] = []

    def make(**context: Any) -> Opened:
        opened.append(Opened(browser, **context))
        return opened[-1]

    yield make
    for one in opened:
        one.context.close()
    for one in opened:
        one.check()


def table_of(site: Path) -> Path:
    (found,) = (site / "tables").glob("*.html")
    return found


def every_page(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def open_everything(page: Any) -> None:
    for button in page.locator("[data-open-all]").all():
        button.click()
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")


def labels(page: Any) -> list[str]:
    found = page.locator("tbody[data-item=rows]:visible .name").all_inner_texts()
    return [text.strip() for text in found]


def test_a_click_on_a_heading_sorts(tab: Callable[..., Opened], site: Path, runs: list[records.Record]) -> None:
    page = tab().go(table_of(site))
    before = labels(page)
    (table,) = leaderboard.leaderboard(runs)
    assert [" ".join(name.split()) for name in before] == [" ".join(row.cells[0].text.split()) for row in table.rows]
    place = next(place for place, column in enumerate(table.columns) if column.key == "final_avg_acc")
    head = page.locator("thead th").nth(place)
    for order, sign in (("descending", -1), ("ascending", 1)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == order
        values = page.locator(f"tbody[data-item=rows] > tr:first-child > :nth-child({place + 1})")
        shown = [float(cell.get_attribute("data-order")) for cell in values.all()]
        assert shown == sorted(shown, key=lambda value: sign * value)
        assert len(set(shown)) > 2
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert labels(page) == before
    page.locator("thead th").first.get_by_role("button").click()
    names = [name.lower() for name in labels(page)]
    assert names == sorted(names)


def test_filters(tab: Callable[..., Opened], site: Path) -> None:
    page = tab().go(table_of(site))
    count = page.locator("[data-count=rows]")
    page.get_by_placeholder("Search rows").fill("LONGER name")
    assert labels(page) == ["a name that is longer than any"]
    assert count.inner_text() == "1 of 5 rows"
    page.get_by_placeholder("Search rows").fill("nothing like this")
    assert page.get_by_text("No row fits.").is_visible()
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelector('[data-count=rows]').textContent === '5 rows'")
    page.get_by_label("Uses").select_option("memory")
    assert sorted(labels(page)) == ["beta", "gamma"]
    page.get_by_label("Kind").select_option("control")
    assert labels(page) == ["beta"]


def test_the_overview_is_searched(tab: Callable[..., Opened], site: Path) -> None:
    page = tab().go(site / "index.html")
    page.get_by_placeholder("Search tables, methods, scenarios").fill("gamma")
    assert page.locator("#methods .card:visible h3").all_inner_texts() == ["gamma"]
    assert page.locator("#tables .card:visible").count() == 1  # it has a row of that name
    assert page.get_by_text("No scenario fits.").is_visible()
    page.locator("#methods .card:visible a").click()
    assert page.get_by_role("heading", level=1).inner_text() == "gamma"


def test_details_open(tab: Callable[..., Opened], site: Path, runs: list[records.Record]) -> None:
    page = tab().go(table_of(site))
    row = page.locator("#row-gamma")
    button, more = row.get_by_role("button").first, row.locator("tr.more")
    assert not more.is_visible()
    assert button.get_attribute("aria-expanded") == "false"
    button.focus()
    page.keyboard.press("Enter")
    assert more.is_visible()
    assert button.get_attribute("aria-expanded") == "true"
    text = more.inner_text()
    (table,) = leaderboard.leaderboard(runs)
    own = [raw for raw in table.runs if raw["method"] == "gamma"]
    assert len(own) == 3
    for raw in own:
        assert str(raw["command"]) in text
        assert str(raw["git_commit"])[:10] in text
        link = more.get_by_role("link", name=f"{raw['run_id']}.json")
        kept = table_of(site).parent / link.get_attribute("href")
        assert records.read(kept).run_id == raw["run_id"]
    assert "keeps training images of past experiences" in text  # the footnote
    more.get_by_text("options").click()
    assert more.get_by_text("method.lr", exact=True).is_visible()
    button.click()
    assert not more.is_visible()
    page.get_by_role("button", name="Open all").click()
    assert page.locator("tr.more:visible").count() == 5
    again = tab().go(table_of(site), "#row-alpha")
    assert again.locator("#row-alpha tr.more").is_visible()
    assert again.locator("tr.more:visible").count() == 1


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_no_page_is_wider_than_the_window(tab: Callable[..., Opened], site: Path, width: int) -> None:
    opened = tab(viewport={"width": width, "height": 800})
    for path in every_page(site):
        page = opened.go(path)
        open_everything(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_headings_and_first_column_stay(tab: Callable[..., Opened], site: Path) -> None:
    page = tab(viewport={"width": NARROW, "height": 500}).go(table_of(site))
    page.get_by_role("button", name="Open all").click()
    scroll = page.locator("main > .scroll")
    scroll.evaluate("node => node.scrollTo(240, 160)")
    assert scroll.evaluate("node => [node.scrollLeft, node.scrollTop]") == [240, 160]
    frame = scroll.bounding_box()
    head = page.locator("thead th").nth(3).bounding_box()
    assert abs(head["y"] - frame["y"]) < 3
    for first in page.locator("tbody[data-item=rows] th.first").all():
        assert abs(first.bounding_box()["x"] - frame["x"]) < 3
    inside = page.locator(".inside").first.bounding_box()
    assert inside["x"] >= frame["x"] - 1
    assert inside["width"] <= frame["width"]


def test_dark_and_light(tab: Callable[..., Opened], site: Path) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page = tab(color_scheme=scheme).go(table_of(site))
        colours = page.evaluate(
            "['body', 'main h1', '.board .first'].map(at => getComputedStyle(document.querySelector(at)))"
            ".map(style => [style.backgroundColor, style.color])"
        )
        shades[scheme] = (_light(colours[0][0]), _light(colours[1][1]), _light(colours[2][0]))
    (ground, ink, first), (dark_ground, dark_ink, dark_first) = shades["light"], shades["dark"]
    assert min(ground, first, dark_ink) > 200
    assert max(ink, dark_ground, dark_first) < 60


def _light(colour: str) -> float:
    """Mean of red, green and blue of ``rgb(1, 2, 3)``."""
    return sum(float(part) for part in colour[4:-1].split(",")) / 3


def test_two_rows_are_compared(tab: Callable[..., Opened], site: Path, runs: list[records.Record]) -> None:
    page = tab().go(site / "compare.html")
    page.locator("#verdict").wait_for()
    page.get_by_label("Row").select_option(label="alpha")
    page.get_by_label("against").select_option(label="gamma")
    (board,) = scores.boards_of(runs)
    one, two = (next(row for row in board.rows if row.label == name) for name in ("alpha", "gamma"))
    (pair,) = comparison.compare([one, two], lambda run: None)
    _, *lines = compared.told(pair)
    assert page.locator("#lines li").all_inner_texts() == lines
    assert page.locator("#gap").inner_text() == f"+{100 * pair.difference:.2f}"
    assert page.locator("#sets tbody tr").count() == len(pair.experiences)
    page.get_by_label("against").select_option(label="alpha")
    assert page.get_by_role("alert").inner_text().startswith("These are the same row")
    address = page.url
    page.get_by_label("against").select_option(label="beta")
    assert page.url != address
    again = tab().go(site / "compare.html", "#" + page.url.partition("#")[2])
    again.locator("#verdict").wait_for()
    assert again.locator("#two strong").inner_text() == "beta"
    again.locator("#two").click()
    again.locator("#row-beta tr.more").wait_for()


def test_hostile_texts_do_nothing(tab: Callable[..., Opened], site: Path) -> None:
    opened = tab()
    for path in every_page(site):
        page = opened.go(path)
        open_everything(page)
        for kind in ("mouseover", "mousemove", "click"):
            page.evaluate(
                "kind => document.querySelectorAll('main *:not(a, a *)')"
                ".forEach(node => node.dispatchEvent(new MouseEvent(kind, { bubbles: false })))",
                kind,
            )
        assert page.locator("script:not([src])").count() == 0
        assert page.locator("img[src=x], [onmouseover], [onerror]").count() == 0


def test_the_policy_stops_what_would_slip_through(browser: Any, site: Path) -> None:
    opened = Opened(browser)
    page = opened.go(site / "index.html")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.bad = 1'}))"
    )
    assert page.evaluate("window.bad") is None
    assert any("Content Security Policy" in text for text in opened.wrong)
    opened.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", WIDE), ("dark", NARROW)])
def test_accessible(tab: Callable[..., Opened], site: Path, scheme: str, width: int) -> None:
    opened = tab(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    for path in every_page(site):
        page = opened.go(path)
        if path.name == "compare.html":
            page.locator("#verdict").wait_for()
        open_everything(page)
        # Preloading would ask for the style sheet once more, which pages from a file may not.
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        told = [f"{wrong['id']}: {node['html'][:200]}" for wrong in found for node in wrong["nodes"][:3]]
        assert told == [], path


def test_without_scripts_everything_can_be_read(tab: Callable[..., Opened], site: Path) -> None:
    page = tab(java_script_enabled=False).go(table_of(site))
    assert page.locator("tr.more:visible").count() == 5
    assert page.locator("form:visible").count() == 0
