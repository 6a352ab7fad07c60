"""`bench site`: which files there are, that links lead somewhere, and that no text of a record becomes markup."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from benchmark import leaderboard, records
from benchmark.cli import main
from benchmark.errors import EXIT_OK, EXIT_USAGE
from benchmark.site import build, links, names, pages, prose, scenarios
from benchmark.site.build import Request

TEMPLATE = records.plain(records.read(Path(__file__).parents[1] / "golden" / "records" / "v1.json"))
HOSTILE = (
    "</script><script>alert(1)</script>\"' onmouseover=alert(2) x='<img src=x onerror=alert(3)>&#60;"
    "\u202e../../../etc/passwd"
)
TRAVERSAL = "../../evil"
# What templates consist of; a text that became markup would bring an element or an attribute that is none of these.
ATTRIBUTES = {
    *(
        "alt",
        "aria-controls",
        "aria-current",
        "aria-expanded",
        "aria-hidden",
        "aria-label",
        "aria-live",
        "aria-pressed",
    ),
    *(
        "autocomplete",
        "charset",
        "class",
        "colspan",
        "content",
        "defer",
        "height",
        "hidden",
        "href",
        "http-equiv",
        "id",
    ),
    *("lang", "loading", "name", "open", "placeholder", "preserveaspectratio", "rel", "role", "rx", "scope", "src"),
    *("tabindex", "title", "type", "value", "viewbox", "width", "x", "y"),
}
FILES = ("assets/site.css", "assets/site.js", "assets/compare.js", "index.html", "compare.html")


class Page(HTMLParser):
    """Elements of a page, with what they point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.scripts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add("data-" if name.startswith("data-") else name)
            if name in ("href", "src"):
                self.targets.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag == "script":
            self.scripts.append(dict(attrs).get("src"))

    def handle_data(self, data: str) -> None:
        self.text += data


def run(method: str, seed: int, **changes: Any) -> records.Record:
    about = {**TEMPLATE["method"], "name": method, "control": False, **changes.pop("about", {})}
    seeds = dict.fromkeys(TEMPLATE["seeds"], seed)
    run_id = hashlib.sha256(repr((method, seed, changes)).encode()).hexdigest()[:16]
    return records.parse({**TEMPLATE, "method": about, "seeds": seeds, "run_id": run_id, **changes})


def hostile(name: str, seed: int) -> records.Record:
    """A record that is evil wherever the schema leaves room for it."""
    scenario = {
        **TEMPLATE["scenario"],
        "name": HOSTILE,
        "notes": {HOSTILE: HOSTILE},
        "distribution": HOSTILE,
        "partition": HOSTILE,
        "tests": [{**test, "name": HOSTILE} for test in TEMPLATE["scenario"]["tests"]],
        "options": {"train": HOSTILE},
    }
    about = {"recipe": HOSTILE, "uses": [HOSTILE], "paper": "javascript:alert(4)", "distribution": HOSTILE}
    config = json.loads(json.dumps(TEMPLATE["config"]))
    config["effective"]["method"] = {HOSTILE: HOSTILE}
    config["effective"]["scenario"] = {"train": HOSTILE}
    made = {**TEMPLATE["provenance"], "git_commit": HOSTILE, "command": "bench run </script>"}
    return run(
        name,
        seed,
        about=about,
        scenario=scenario,
        track=HOSTILE,
        config=config,
        provenance=made,
        warnings=[HOSTILE, "javascript:alert(5)"],
        backbone={**TEMPLATE["backbone"], "name": HOSTILE, "image_name": HOSTILE},
    )


def made(found: list[records.Record], **more: Any) -> dict[str, bytes]:
    request = Request(**{"records": found, "installed": False, "kinds": (), **more})
    files: dict[str, bytes] = {}
    for path, content in build.build(request):
        assert path not in files
        files[path] = content
    return files


@pytest.fixture(scope="module")
def site() -> dict[str, bytes]:
    """Three methods, three seeds each."""
    found = [run(name, seed) for name in ("l2p", "l2p++", "Odd name: <b>x</b>") for seed in range(3)]
    return made(found)


@pytest.fixture(scope="module")
def evil() -> dict[str, bytes]:
    look = lambda record: scenarios.Samples(scenario=HOSTILE, text=f"{HOSTILE}\n{HOSTILE}")  # noqa: E731
    both = [hostile(name, seed) for name in (HOSTILE, f"{TRAVERSAL}{HOSTILE}") for seed in range(2)]
    return made([*both, *(run("l2p", seed) for seed in range(2))], look=look)


def parsed(files: dict[str, bytes]) -> dict[str, Page]:
    return {path: Page(content.decode()) for path, content in files.items() if path.endswith(".html")}


def test_there_is_a_page_for_everything(site: dict[str, bytes]) -> None:
    kinds = {
        kind: [path for path in site if path.startswith(f"{kind}/")] for kind in ("tables", "methods", "scenarios")
    }
    assert {kind: len(paths) for kind, paths in kinds.items()} == {"tables": 1, "methods": 3, "scenarios": 1}
    assert set(FILES) <= set(site)
    assert sum(path.startswith("records/") for path in site) == 9


@pytest.mark.parametrize("which", ["site", "evil"])
def test_links_lead_somewhere(which: str, request: pytest.FixtureRequest) -> None:
    files = request.getfixturevalue(which)
    every = parsed(files)
    for path, page in every.items():
        assert len(page.ids) == len(set(page.ids)), path
        for target in page.targets:
            if target.startswith("https://"):
                continue
            place, _, anchor = target.partition("#")
            full = path
            if place:
                parts = [*path.split("/")[:-1], *place.split("/")]
                while ".." in parts:
                    at = parts.index("..")
                    assert at > 0, f"{path}: {target} leaves the site"
                    del parts[at - 1 : at + 1]
                full = "/".join(parts)
            assert full in files, f"{path}: {target}"
            if anchor and full.endswith(".html") and full != "compare.html":
                assert anchor in every[full].ids, f"{path}: {target}"


def test_numbers_are_those_of_the_leaderboard(site: dict[str, bytes]) -> None:
    found = [records.parse(json.loads(content)) for path, content in site.items() if path.startswith("records/")]
    (table,) = leaderboard.leaderboard(found)
    (page,) = [content.decode() for path, content in site.items() if path.startswith("tables/")]
    text = " ".join(Page(page).text.split())
    for row in table.rows:
        for cell in row.cells:
            assert " ".join(cell.text.split()) in text
    for _, note in table.footnotes:
        assert " ".join(note.split()) in text
    for raw in table.runs:
        assert str(raw["command"]) in text


def test_records_are_those_that_were_given(site: dict[str, bytes]) -> None:
    one = run("l2p", 0)
    assert records.parse(json.loads(site[f"records/{one.run_id}.json"])) == one


def test_no_text_of_a_record_becomes_markup(site: dict[str, bytes], evil: dict[str, bytes]) -> None:
    harmless = set().union(*(page.tags for page in parsed(site).values())) | {"noscript", "pre", "ul", "li", "cite"}
    for path, page in parsed(evil).items():
        assert page.tags <= harmless | {"details", "summary"}, path
        assert "img" not in page.tags
        assert page.attributes <= {*ATTRIBUTES, "data-"}, path
        assert not any(target.lower().strip().startswith(("javascript", "data:", "//")) for target in page.targets)
        assert all(source and source.endswith(".js") for source in page.scripts), path
        assert "\u202e" not in page.text


def test_hostile_texts_are_shown_as_they_are(evil: dict[str, bytes]) -> None:
    every = parsed(evil)
    found = [page for path, page in every.items() if path.startswith("methods/") and path != "methods/l2p.html"]
    assert len(found) == 2
    for page in found:
        assert "</script><script>alert(1)</script>" in page.text
        assert "javascript:alert(4)" in page.text
        assert not [target for target in page.targets if target.startswith("https://")]
    shown = "".join(page.text for path, page in every.items() if path.startswith(("tables/", "scenarios/")))
    assert shown.count("<img src=x onerror=alert(3)>&#60;") > 20


def test_every_page_forbids_what_is_written_into_it(evil: dict[str, bytes]) -> None:
    for path, content in evil.items():
        if path.endswith(".html"):
            text = content.decode()
            assert "default-src &#39;none&#39;; script-src &#39;self&#39;" in text, path
            assert text.index("Content-Security-Policy") < text.index("<script"), path


def test_data_cannot_end_a_script(evil: dict[str, bytes]) -> None:
    data = [content.decode() for path, content in evil.items() if path.startswith("data/")]
    assert data
    for text in data:
        assert not set("<>&\u2028") & set(text)
        call = re.fullmatch(r"adaptbench\.receive\((.*)\);\n", text)
        assert call is not None
        assert json.loads(call[1])["rows"]
    hostile = pages.data({"a": "</script>\u2028"})
    assert b"</" not in hostile
    assert hostile == b'adaptbench.receive({"a":"\\u003c/script\\u003e\\u2028"});\n'


def test_paths_stay_inside(evil: dict[str, bytes]) -> None:
    for path in evil:
        assert re.fullmatch(r"([a-z]+/)?[a-z0-9.-]+", path), path
        assert not path.startswith(".")
        assert ".." not in path


@pytest.mark.parametrize(
    "text", ["../x", "a/b", "a\\b", "CON", "con", "index", "", ".", "..", "é", "l2p++", "A", "x" * 300]
)
def test_unsafe_names_get_a_hash(text: str) -> None:
    assert re.fullmatch(r"([a-z0-9-]+-)?[0-9a-f]{6}", names.slug(text))
    assert names.slug(text) == names.slug(text)


def test_safe_names_stay() -> None:
    assert names.slug("split-cifar100") == "split-cifar100"
    assert names.slug("l2p++") != names.slug("l2p") == "l2p"
    assert names.slug("A") != names.slug("a")


def test_links_elsewhere_have_known_forms_only() -> None:
    assert links.paper("arXiv:2112.08654") == "https://arxiv.org/abs/2112.08654"
    assert links.paper("10.1145/3292500") == "https://doi.org/10.1145/3292500"
    assert links.reference("google-research/l2p@8cfb210") == "https://github.com/google-research/l2p"
    assert links.address("https://github.com/zalandoresearch/fashion-mnist") is not None
    for text in ("javascript:alert(1)", "arXiv:x", "http://x.y", "https://a.b/?q=1", "https://a.b@c.d/", "a/b", ""):
        assert links.paper(text) is None
        assert links.reference(text) is None
        assert links.address(text) is None


def test_docstrings_become_blocks() -> None:
    text = "One `a` and ``b``.\n\nList:\n- first\n  goes on\n- second\nBehind it.\n\n    literal\n      more\n"
    found = prose.blocks(text)
    assert [block.kind for block in found] == ["p", "p", "list", "p", "pre"]
    assert found[0].parts == (("One ", "a", " and ", "b", "."),)
    assert found[2].parts == (("first goes on",), ("second",))
    assert found[4].parts == (("literal\n  more",),)


# --- on disk and on the command line ----------------------------------------------------------------


def test_a_site_is_built_again_and_what_is_stale_goes(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    build.check(folder, "--output")
    files = made([run("l2p", 0), run("old", 0)])
    assert build.write(folder, iter(files.items())) == len(files)
    assert (folder / "methods" / "old.html").is_file()
    build.check(folder, "--output")
    again = made([run("l2p", 0)])
    build.write(folder, iter(again.items()))
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*again, build.MARKER}


def test_nothing_but_a_site_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    out = tmp_path / "runs"
    records.write(out / "a.json", run("l2p", 0))
    assert main(["site", "--results", str(out), "-o", str(tmp_path)]) == EXIT_USAGE
    assert "the folder holds other files" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "thesis.tex"]


def test_a_marker_that_names_other_files_removes_none(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "outside").write_text("mine")
    evil = ["../outside", "/etc/hostname", "a/../../outside", ".git", "..", 7]
    (folder / build.MARKER).write_text(json.dumps({"files": evil}))
    build.write(folder, iter([("index.html", b"x")]))
    assert (tmp_path / "outside").read_text() == "mine"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        records.write(tmp_path / "runs" / f"{seed}.json", run("l2p", seed))
        records.write(tmp_path / "runs" / f"x{seed}.json", run("other", seed))
    words = ["site", "--results", str(tmp_path / "runs"), "--only-used", "--no-samples"]
    assert main([*words, "-o", str(tmp_path / "a"), "--plot", "accuracy", "--title", "My <results>"]) == EXIT_OK
    assert "index.html" in capsys.readouterr().err
    index = (tmp_path / "a" / "index.html").read_text(encoding="utf-8")
    assert "<h1>My &lt;results&gt;</h1>" in index
    drawn = list((tmp_path / "a" / "figures").glob("*.svg"))
    assert any("method-l2p" in path.name for path in drawn)
    assert main([*words, "-o", str(tmp_path / "b"), "--plot", "none", "--no-records"]) == EXIT_OK
    assert not (tmp_path / "b" / "figures").exists()
    assert not (tmp_path / "b" / "records").exists()
    assert main([*words, "-o", str(tmp_path / "c"), "--plot", "acuracy"]) == EXIT_USAGE
    assert "did you mean `accuracy`" in capsys.readouterr().err


def test_equal_records_make_equal_files(site: dict[str, bytes]) -> None:
    found = [run(name, seed) for name in ("Odd name: <b>x</b>", "l2p++", "l2p") for seed in reversed(range(3))]
    again = made(found)
    assert {path: content for path, content in again.items()} == site
