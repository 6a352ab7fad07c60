"""Where a number comes from: versions, source revision, hardware, command."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("adaptbench", "torch", "torchvision", "timm", "avalanche-lib", "open_clip_torch", "numpy", "pyarrow")


def versions() -> dict[str, str]:
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
    """The command as the user typed it, without the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def collect(*, device: str, threads: int, deterministic: bool) -> dict[str, Any]:
    """The ``provenance`` part of a record."""
    commit, dirty = git_state(Path(__file__).parent)
    return {
        "command": command_line(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions(),
        "git_commit": commit,
        "git_dirty": dirty,
        "device": device,
        "threads": threads,
        "deterministic": deterministic,
    }
