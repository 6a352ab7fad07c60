"""Packages of strangers: installed into an environment of their own, never collected with our tests."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

collect_ignore = ["bench-doors", "bench-toy", "bench-words"]

# Answers each line `[arguments, environment, folder, stdout, stderr]` with the exit code of `bench` in a process of its
# own. To import torch takes seconds: that is done once, before anything of the benchmark or of a plugin is imported.
BENCH = """
import json, os, signal, sys
import timm, torch, torchvision
for line in sys.stdin:
    sys.argv[1:], environment, folder, *files = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(300)  # a command that hangs ends, and its test fails
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        from benchmark.cli import main
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A fresh venv; call it with a command to run inside.

    Downloading torch again would take minutes, so the venv sees the packages of the current one through
    a path file. (``--system-site-packages`` would show those of the *base* interpreter instead.)
    What is installed into the venv comes first and stays there.
    """
    folder = tmp_path_factory.mktemp("stranger") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # `site.addsitedir` also reads the path files of editable installs, a bare path would not.
    paths = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    lines = [f"import site; site.addsitedir({path!r})" for path in paths]
    Path(own, "surroundings.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")

    more = {"OMP_NUM_THREADS": "1", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    shown = tmp_path_factory.mktemp("shown")

    def run(*command: str | Path, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        first, *rest = map(str, command)
        env = {**os.environ, **more}
        if first == "bench":
            files = [shown / f"{next(count)}.{name}" for name in ("out", "err")]
            assert bench.stdin is not None
            assert bench.stdout is not None
            bench.stdin.write(json.dumps([rest, env, *map(str, (cwd or Path.cwd(), *files))]) + "\n")
            bench.stdin.flush()
            found = int(bench.stdout.readline())
            result = subprocess.CompletedProcess(rest, found, *(file.read_text(encoding="utf-8") for file in files))
        else:
            start = [str(python), "-m", first, *rest]
            result = subprocess.run(start, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
        assert result.returncode == code, f"{command}: exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    count = itertools.count()
    # The script `bench` of the outer environment would start the outer Python.
    start, pipe = [str(python), "-c", BENCH], subprocess.PIPE
    with subprocess.Popen(start, env={**os.environ, **more}, stdin=pipe, stdout=pipe, text=True) as bench:
        yield run
        bench.kill()  # the end of its input may be held open by another process


@pytest.fixture(scope="session")
def install(stranger: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Installs package folders into the stranger's venv, without network; builds in a copy."""

    def install_all(*folders: Path) -> None:
        copies = []
        for folder in folders:
            copies.append(tmp_path_factory.mktemp("source") / folder.name)
            shutil.copytree(folder, copies[-1])
        # Build isolation would fetch hatchling: it is in the dependency group `test` instead.
        stranger("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", *copies)

    return install_all
