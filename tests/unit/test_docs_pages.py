"""The docs as a whole: commands are understood, both languages say the same, the tutorial is one script."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from benchmark import errors
from benchmark.cli import COMMANDS, module_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SCRIPT = DOCS / "examples" / "student_path.sh"
NOTEBOOK = DOCS / "examples" / "student_path.ipynb"
GENERATED = {f"{name}.md" for name in ("cli", "hooks", "methods", "modules", "records", "reference", "scenarios")}
PAGES = [ROOT / "README.md", *(path for path in sorted(DOCS.glob("*.md")) if path.name not in GENERATED)]

# Where the code of a page is executed.
EXECUTED = {
    "README.md": "tests/e2e/test_bench.py",
    "adaptation.md": "tests/unit/test_docs_adaptation.py",
    "doors.md": "tests/unit/test_docs_doors.py",
    "language.md": "tests/unit/test_docs_language.py",
    "plugin-author.md": "tests/unit/test_docs.py",
    "python.md": "tests/unit/test_results.py",
    "tutorial.md": "tests/unit/test_docs_pages.py",
}
# Why it is not; its commands are still understood by the command line.
NOT_RUN = {
    "auditing.md": "an audit trains a method many times",
    "backbones.md": "needs weights that are fetched",
    "comparing.md": "the pages' runs take an hour; tests/unit/test_compare.py runs the commands on small records",
    "data.md": "needs data sets that are fetched",
    "figures.md": "tests/unit/test_plot.py draws every kind from small records",
    "getting-started.md": "full streams, and real data and a GPU in two of its three paths; the tutorial is executed",
    "gpu.md": "needs GPUs",
    "how-do-i.md": "one line from each of the other pages",
    "importing.md": "needs files of other suites; tests/unit/test_importers.py reads recorded ones",
    "models.md": "full streams; tests/unit/test_trained.py saves and asks a small model",
    "parity.md": "tox -e parity writes its table",
    "performance.md": "measures for minutes: tox -e perf",
    "reproducibility.md": "full streams; tests/unit/test_bundles.py runs the commands on small records",
    "reproducing.md": "full streams; tests/unit/test_rerun.py runs the commands on small records",
    "site.md": "tests/unit/test_site.py writes and looks at a small site",
    "streams.md": "full streams; tests/unit/test_arrival.py runs small ones",
    "sweeps.md": "hours, and clusters; tests/unit/test_sweep.py and tests/cluster run small ones",
    "tables.md": "tests/unit/test_table_texts.py makes every table from small records",
    "trackers.md": "full streams; tests/unit/test_tracking.py follows small ones",
    "tuning.md": "a search is many runs; tests/unit/test_tune.py does a small one",
}


def code(text: str) -> list[str]:
    """The code blocks of a page as they stand, fenced or indented."""
    found: list[str] = []
    lines, place = text.split("\n"), 0
    while place < len(lines):
        fenced = lines[place].lstrip().startswith("```")
        end = place + 1
        if fenced:
            while not lines[end].lstrip().startswith("```"):
                end += 1
            end += 1
        elif lines[place].startswith("    ") and lines[place - 1] == "":
            while end < len(lines) and lines[end].startswith("    "):
                end += 1
        else:
            place = end
            continue
        found.append("\n".join(lines[place:end]))
        place = end
    return found


def commands(text: str) -> list[str]:
    """Every complete `bench` command in the code of a page."""
    found = []
    for block in code(text):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.strip().removeprefix("$ ").split("&&"):
                part = re.sub(r"\$\([^)]*\)", "X", part.strip())
                part = re.sub(r"^(\w+=\S+ )+", "", part)
                if part.startswith("bench ") and "..." not in part and not re.search(r"[<>\[]|\bCOMMAND\b", part):
                    found.append(part)
    return found


def understood(command: str) -> bool:
    """Whether the command line would take it."""
    words = shlex.split(command, comments=True)[1:]
    while words and words[0] in ("-p", "-q", "-v"):
        words = words[2 if words[0] == "-p" else 1 :]
    if not words or words[0] not in COMMANDS:
        return words == ["--version"]
    parser = argparse.ArgumentParser(prog=f"bench {words[0]}")
    module_of(words[0]).add_arguments(parser)
    try:
        parser.parse_args(words[1:])
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page: Path) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        assert understood(command), command


def test_a_wrong_command_is_not_understood() -> None:
    assert understood("bench run --scenario a --method b --seed 0-2   # a comment")
    assert not understood("bench run --scenario a --methods-of b")
    assert not understood("bench walk")
    assert commands("```console\n$ FOO=1 bench list && bench doctor\n```\n\n    bench info a\n") == [
        "bench list",
        "bench doctor",
        "bench info a",
    ]


def test_code_of_every_page_is_executed_or_it_says_why_not() -> None:
    with_code = {page.name for page in PAGES if code(page.read_text(encoding="utf-8"))}
    known = EXECUTED.keys() | NOT_RUN.keys()
    assert with_code <= known, "say where the code of these pages is executed, or why not"
    assert not EXECUTED.keys() & NOT_RUN.keys()
    for test in {*EXECUTED.values(), *re.findall(r"tests/\S+?\.py", " ".join(NOT_RUN.values()))}:
        assert (ROOT / test).is_file(), test


def script_of(tutorial: str) -> str:
    """The tutorial as one script: the file that it has its reader save, then its commands."""
    (program,) = re.findall(r"^```python\n(.*?)^```$", tutorial, re.DOTALL | re.MULTILINE)
    console = re.findall(r"^```console\n(.*?)^```$", tutorial, re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for block in console for line in block.splitlines()]
    head = (
        "#!/usr/bin/env bash\n# docs/tutorial.md as one script; a test holds it against the page.\nset -euo pipefail\n"
    )
    return f"{head}\ncat > make_images.py <<'END'\n{program}END\n\n" + "\n".join(lines) + "\n"


def test_the_tutorial_is_the_script() -> None:
    assert SCRIPT.read_text(encoding="utf-8") == script_of((DOCS / "tutorial.md").read_text(encoding="utf-8"))


@pytest.mark.student
def test_the_path_of_a_student(tmp_path: Path) -> None:
    """Every command of the tutorial, in order, in an empty folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").rglob("*.json"))) == 9
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
    assert "toprule" in (tmp_path / "table.tex").read_text(encoding="utf-8")
    assert (tmp_path / "site" / "index.html").is_file()
    assert re.search(r"^patterns/rings/00\.png  (\w+) +[\d.]+ %$", done.stdout, re.MULTILINE)


@pytest.mark.student
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Every cell, in a kernel of its own; what is committed was made so."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    shutil.copy(NOTEBOOK, tmp_path)
    book = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    committed = [cell.source for cell in book.cells]
    nbclient.NotebookClient(book, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [cell.source for cell in book.cells] == committed
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")


def test_the_notebook_has_the_outputs_of_a_real_run() -> None:
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = json.dumps([cell["outputs"] for cell in cells])
    assert "linear-probe" in shown
    assert "image/png" in shown
    # As in the script, its last step asks a saved model about one image.
    last = cells[-1]
    assert "bench.load_model(" in "".join(last["source"])
    assert "patterns/rings/00.png" in "".join(last["source"])
    assert re.search(r"\('rings', 0\.\d+\)", json.dumps(last["outputs"]))
    assert '"error"' not in shown
    assert str(Path.home()) not in shown


TRANSLATED = [("README.md", "README.zh.md"), ("docs/getting-started.md", "docs/zh/getting-started.md")]


def prose(text: str) -> str:
    for block in code(text):
        text = text.replace(block, "")
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)", "", text)


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED)
def test_the_chinese_page_says_what_the_english_one_says(english: str, chinese: str) -> None:
    """The same commands and outputs, the same figures, the same sections."""
    one, two = ((ROOT / name).read_text(encoding="utf-8") for name in (english, chinese))
    assert code(two) == code(one), "commands differ"
    numbers = [Counter(re.findall(r"\d[\d,.]*\d|\d", prose(text))) for text in (one, two)]
    assert numbers[0] == numbers[1], f"only one has: {numbers[0] - numbers[1]}, {numbers[1] - numbers[0]}"
    headings = [re.findall(r"^#+ ", prose(text), re.MULTILINE) for text in (one, two)]
    assert headings[0] == headings[1]
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", two):
        assert ((ROOT / chinese).parent / target).exists(), target


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_every_page_is_in_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert text == module("generate").site(), "run `python docs/generate.py`"
    for page in DOCS.rglob("*.md"):
        assert text.count(f"- {page.relative_to(DOCS)}\n") == 1


def test_broken_links_and_what_is_fetched_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#here">b</a><a href="https://x.y">x</a>')
    (tmp_path / "b.html").write_text('<p id="here"><script src="a.js"></script><a href="a.html#top">a</a>')
    (tmp_path / "a.js").write_text("")
    problems = module("check_site").problems
    assert problems(tmp_path) == []
    (tmp_path / "b.html").write_text(
        '<link rel="stylesheet" href="https://fonts.x/y.css"><a href="c.html">c</a><img src="//x.y/z.png">'
    )
    assert sorted(problems(tmp_path)) == [
        "a.html links to b.html#here: the page has no such place",
        "b.html fetches //x.y/z.png",
        "b.html fetches https://fonts.x/y.css",
        "b.html links to c.html, which is not there",
    ]


def test_what_is_to_go_warns_for_two_minor_releases() -> None:
    def old() -> None:
        errors.deprecated("benchmark.old", since="0.3", instead="benchmark.new")

    with pytest.warns(DeprecationWarning, match=r"deprecated since 0\.3 and will be gone in 0\.5; use benchmark\.new"):
        old()


def test_the_version_has_a_section_in_the_changelog() -> None:
    from benchmark import __version__

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(__version__)} - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
