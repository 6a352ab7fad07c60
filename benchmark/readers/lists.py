"""Text files that name images and their labels: ``relative/path label``, one per line."""

from __future__ import annotations

from pathlib import Path

from benchmark.errors import DataMissing
from benchmark.readers import files

MOST = 1 << 28


def read_list(path: Path) -> dict[str, tuple[int, int]]:
    """Names of a list, each with its label and the number of its line. Blank lines do not count.

    Args:
        path: UTF-8; the label is what follows the last blank, paths may contain blanks.

    Raises:
        DataMissing: The file is absent, no UTF-8 or empty; a line has no label, or repeats an earlier one.
    """
    shown = files.shown(path)
    found: dict[str, tuple[int, int]] = {}
    for number, raw in enumerate(files.read_bytes(path, most=MOST).splitlines(), 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataMissing(f"{shown}, line {number}: not UTF-8 ({error.reason})") from error
        if not line:
            continue
        name, _, label = line.rpartition(" ")
        if not name or not (label.isascii() and label.isdecimal() and len(label) < 10):
            raise DataMissing(f"{shown}, line {number}: {line[:80]!r} is not `path label`")
        if name.rstrip() in found:
            raise DataMissing(f"{shown}, line {number}: {name.rstrip()} is in line {found[name.rstrip()][1]} already")
        found[name.rstrip()] = int(label), number
    if not found:
        raise DataMissing(f"{shown} names no image")
    return found
