"""Where a number comes from: versions, source revision, hardware, command."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = (
    *("adaptbench", "torch", "torchvision", "timm", "avalanche-lib", "open_clip_torch", "numpy", "pyarrow"),
    *("sacrebleu", "rouge-score"),
)

_PATH = re.compile(r"(?<![^=:,]) (?: [A-Za-z]:[\\/] | /(?!/) ) [^=:,]*", re.VERBOSE)


@functools.cache  # a process computes with what it has imported, whatever is installed meanwhile
def versions() -> Mapping[str, str]:
    """Versions of the packages that can change a number; absent ones are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout that holds ``folder``; (None, None) outside of git."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None, None
    if ask("ls-files", "--error-unmatch", __file__) is None:  # installed inside somebody else's checkout
        return None, None
    return commit, bool(ask("status", "--porcelain", "--untracked-files=no"))


def command_line() -> str:
    """The command as typed, for readers on other machines; bytes that are no text are escaped.

    Absolute paths are told from the current folder on where they lie in it, else by their last part: records name no
    place on somebody's machine.
    """
    typed = shlex.join([Path(sys.argv[0]).name, *map(_from_here, sys.argv[1:])])
    return typed.encode("utf-8", "backslashreplace").decode()


def _from_here(word: str) -> str:
    """A word of a command line; paths stand at its start or behind a sign (``--out=/a``, ``texts:/a/b.csv``)."""
    return _PATH.sub(lambda match: _shown(match[0]), word)


def _shown(text: str) -> str:
    path = Path(text)
    if not path.is_absolute():
        return text
    with contextlib.suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return path.name or text


def resume_command() -> str:
    """What to paste into the same shell so that this command goes on where it was.

    ``--force`` is left out, since it would start again; ``BENCH_DATA`` is put in front, since it may have been set for
    this command alone. Of a run that was started from Python there is no such command, only words.
    """
    if Path(sys.argv[0]).stem != "bench":
        return "the same call again"
    program = Path(sys.argv[0]).name
    words = [program if shutil.which(program) == sys.argv[0] else sys.argv[0], *sys.argv[1:]]
    data = os.environ.get("BENCH_DATA")
    before = f"BENCH_DATA={shlex.quote(data)} " if data and os.name == "posix" else ""
    return before + without_force(shlex.join(words))


def without_force(command: str) -> str:
    """A command without ``--force``."""
    try:
        return shlex.join(word for word in shlex.split(command) if word != "--force")
    except ValueError:  # of an old record: no shell would read it either
        return command


def collect(*, device: str, threads: int, deterministic: bool) -> dict[str, Any]:
    """The ``provenance`` part of a record."""
    commit, dirty = git_state(Path(__file__).parent)
    return {
        "command": command_line(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": dict(versions()),
        "git_commit": commit,
        "git_dirty": dirty,
        "device": device,
        "threads": threads,
        "deterministic": deterministic,
    }
