"""Which numbers a run gets is decided by code that no hash of a run sees: it must not change unnoticed (ADR 12).

`arithmetic.txt` holds the hash of the syntax tree of every such file. When one differs, say whether numbers change:

- they do: raise ``benchmark.code_identity.ENGINE`` by one, then run the command below;
- they do not (bit for bit, as the golden and contract tests show): run ``python tests/unit/test_identity.py``.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

from benchmark.code_identity import ENGINE, code_hash, sources, syntax_hash

CORE = Path(__file__).parents[2] / "benchmark"
FILE = Path(__file__).with_name("arithmetic.txt")
TELLS = (
    "__init__.py",
    "cli/",
    "code_identity.py",
    "config.py",
    "data.py",
    "digests.py",
    "errors.py",
    "events.py",
    "files.py",
    "families.py",
    "guard.py",
    "hookspecs.py",
    "leaderboard/",
    "loading.py",
    "metrics/",
    "readers/",
    "records/",
    "registry.py",
    "run/costs.py",
    "run/interruption.py",
    "run/lock.py",
    "run/plan.py",
    "run/progress.py",
    "run/provenance.py",
    "run/recording.py",
    "run/tuning.py",
    "spec_rules.py",
    "specs.py",
    "tables.py",
    "templates/",
    "testing/",
    "tracks.py",
    "tuning/",
)
"""What only asks, tells, keeps or tabulates; data, weights and options are in the identity of a run themselves."""


def arithmetic() -> dict[str, str]:
    """Hash of the syntax tree of every file of the core that can change a number, by its path."""
    paths = sorted(path.relative_to(CORE).as_posix() for path in CORE.rglob("*.py"))
    return {path: syntax_hash(CORE / path) for path in paths if not path.startswith(TELLS)}


def render() -> str:
    return f"engine {ENGINE}\n" + "".join(f"{digest} {path}\n" for path, digest in arithmetic().items())


def test_arithmetic_does_not_change_unnoticed() -> None:
    head, *lines = FILE.read_text(encoding="utf-8").splitlines()
    known = {tuple(line.split(" ", 1)) for line in lines}
    changed = [path for path, digest in arithmetic().items() if (digest, path) not in known]
    gone = {path for _, path in known} - arithmetic().keys()
    assert (head, changed, gone) == (f"engine {ENGINE}", [], set()), __doc__


def test_what_only_tells_is_there() -> None:
    for path in TELLS:
        assert (CORE / path).exists(), f"{path} is gone: take it out of the list"
    assert re.search(r"run/(feed|evaluation)\.py", " ".join(arithmetic()))


def written(folder: Path, text: str) -> str:
    file = folder / "some.py"
    file.write_text(text)
    return syntax_hash(file)


@pytest.mark.parametrize(
    "other",
    [
        "import torch\n\n\ndef f(x):\n    # twice\n    return 2*x\n",
        '"""A module."""\nimport torch\ndef f(x):\n    """Doubles."""\n    return 2 * x\n',
        "import torch\ndef f(x,): return (2 * x)\n",
    ],
)
def test_words_and_layout_change_no_identity(tmp_path: Path, other: str) -> None:
    assert written(tmp_path, other) == written(tmp_path, "import torch\ndef f(x):\n    return 2 * x\n")


def test_what_a_method_tells_of_its_choices_changes_no_identity_and_nothing_else_may_ask_it(tmp_path: Path) -> None:
    text = "class M:\n    def f(self):\n        return 1\n"
    told = text + "    def chosen_parts(self, images):\n        return self.choose(images)\n"
    assert written(tmp_path, told) == written(tmp_path, text)
    roots = [CORE.parent / "plugins", CORE.parent / "benchmark"]
    asks = [file for root in roots for file in root.rglob("*.py") if ".chosen_parts(" in file.read_text("utf-8")]
    assert asks == [CORE / "run" / "evaluation.py"]


def test_what_a_method_says_of_splitting_its_batches_changes_no_identity(tmp_path: Path) -> None:
    text = "class M:\n    def f(self):\n        return 1\n"
    told = text + "    @property\n    def coupled(self):\n        return 'a variance'\n"
    assert written(tmp_path, told) == written(tmp_path, text)
    assert written(tmp_path, told.replace("coupled", "factor")) != written(tmp_path, text)


@pytest.mark.parametrize("other", ["3 * x", "2 + x", "2.0 * x", "x * 2", "2 * y"])
def test_whatever_can_change_a_number_changes_the_identity(tmp_path: Path, other: str) -> None:
    text = "def f(x):\n    return "
    assert written(tmp_path, text + other) != written(tmp_path, text + "2 * x")


def test_what_a_range_says_to_a_search_alone_changes_no_identity(tmp_path: Path) -> None:
    text = "class A:\n    lr: Annotated[float, Range({})] = 0.1\n    on: bool = {}"
    plain = written(tmp_path, text.format("above=0", "f(1)"))
    assert written(tmp_path, text.format("above=0, log=True, search=(1e-4, 1.0)", "f(1)")) == plain
    assert written(tmp_path, text.format("above=1, log=True", "f(1)")) != plain
    assert written(tmp_path, text.format("above=0", "f(1, log=True)")) != plain
    assert written(tmp_path, text.format("log=True", "1")) == written(tmp_path, text.format("", "1"))


def test_what_a_method_says_of_models_that_are_refused_changes_no_identity(tmp_path: Path) -> None:
    spec = "s = MethodSpec(name='x'{})\n"
    plain = written(tmp_path, spec.format(""))
    assert written(tmp_path, spec.format(", tokens=lambda config: config.depth > 0")) == plain
    assert written(tmp_path, spec.format(", text=True")) != plain
    assert written(tmp_path, "f(tokens=1)\n") != written(tmp_path, "f()\n")


def test_a_method_is_its_module_and_what_it_imports_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_package"
    (package / "sub").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "method.py": "import torch\nfrom . import near\ndef f():\n    from .sub.deep import g\n",
        "near.py": "import some_package.named\n",
        "named.py": "",
        "sub/__init__.py": "",
        "sub/deep.py": "from .. import last\n",
        "last.py": "",
        "unused.py": "",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("some_package.method")
    try:
        found = [path.relative_to(package).as_posix() for path in sources(module)]
        assert sorted(found) == sorted(name for name in files if name != "unused.py")
        before = code_hash(module)
        (package / "sub" / "deep.py").write_text("from .. import last  # imported when it runs\n")
        assert code_hash(module) == before
        (package / "last.py").write_text("x = 1\n")
        assert code_hash(module) != before
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "some_package"]:
            del sys.modules[name]


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
