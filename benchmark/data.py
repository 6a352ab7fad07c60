"""Where data live, and how they are fetched.

Particular data sets describe themselves with `DataSet` (`benchmark.datasets`), and their files are read by
`benchmark.readers`. Nothing is fetched at import. torch is not needed here.

Environment: ``BENCH_DATA``, ``BENCH_CACHE`` (folders), ``BENCH_OFFLINE=1`` (never fetch anything).
"""

from __future__ import annotations

import http.client
import os
import queue
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark.datasets import DataSet, Download, Form, Mirror, file_hash, file_md5, find, mebibytes
from benchmark.errors import DataMissing
from benchmark.files import switched_on, user_path

__all__ = [
    "DataSet",
    "Download",
    "Form",
    "Mirror",
    "absent",
    "cache_root",
    "data_root",
    "fetch",
    "file_hash",
    "file_md5",
    "find",
    "forbidden",
    "mebibytes",
    "notice",
    "user_folder",
]

SMALL = 200_000_000
"""Bytes. Sets up to this size are fetched on first use, larger ones only with ``--download``."""

CONNECT_SECONDS = 5.0
"""Patience for a connection; name look-up may take as long again."""

_APP = "adaptbench"
_BLOCK = 1 << 18


# --- folders ------------------------------------------------------------------------------------


def user_folder(kind: str) -> Path:
    """The user's folder for ``data`` or ``cache``, by the platform's convention; not created.

    ``$XDG_DATA_HOME/adaptbench`` and ``$XDG_CACHE_HOME/adaptbench`` where these are set; else
    ``~/.local/share`` and ``~/.cache`` (Linux), ``~/Library`` (macOS), ``%LOCALAPPDATA%`` (Windows).
    """
    home = Path.home()
    given = os.environ.get(f"XDG_{kind.upper()}_HOME")
    if given:
        return Path(given) / _APP
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / _APP / kind
    if sys.platform == "darwin":
        return home / "Library" / ("Caches" if kind == "cache" else "Application Support") / _APP
    return home / (".cache" if kind == "cache" else ".local/share") / _APP


def data_root(given: Path | None = None) -> Path:
    """The folder that holds one folder per data set: ``given``, else ``BENCH_DATA``, else the user's.

    Raises:
        DataMissing: A folder that was named explicitly does not exist.
    """
    named = given or (Path(os.environ["BENCH_DATA"]) if os.environ.get("BENCH_DATA") else None)
    if named is None:
        return user_folder("data")
    named = user_path(named)
    if not os.path.isdir(named):
        option = "--data-root" if given else "BENCH_DATA"
        raise DataMissing(f"{option} {named}: no such folder", hint="create it, or name the folder that holds the data")
    return named


def cache_root(given: Path | None = None) -> Path:
    """The folder for derived files: ``given``, else ``BENCH_CACHE``, else the user's; may not exist yet."""
    named = given or (Path(os.environ["BENCH_CACHE"]) if os.environ.get("BENCH_CACHE") else None)
    return user_path(named) if named else user_folder("cache")


def absent(datasets: Iterable[DataSet], root: Path | None) -> list[DataSet]:
    """Those of some data sets that have no folder below the data root (`data_root`).

    Raises:
        DataMissing: The data root was named explicitly and does not exist.
    """
    found = data_root(root)
    return [dataset for dataset in datasets if find(dataset.folders, found) is None]


# --- fetching -----------------------------------------------------------------------------------


def notice(text: str) -> None:
    """Tells the user on stderr what is being done on their behalf."""
    print(text, file=sys.stderr, flush=True)


def forbidden(size: int, mode: str) -> str | None:
    """Why a file of ``size`` bytes must not be fetched, or None.

    Args:
        size: In bytes.
        mode: ``auto``, ``always`` or ``never`` (`benchmark.api.ScenarioRequest.download`).
    """
    if mode == "never":
        return "downloads are switched off (--no-download)"
    if switched_on("BENCH_OFFLINE"):
        return "downloads are switched off (BENCH_OFFLINE)"
    if mode == "auto" and size > SMALL:
        return f"{mebibytes(size)} are fetched only with --download"
    return None


def fetch(dataset: DataSet, root: Path, *, mode: str = "auto") -> Path:
    """Fetches a data set's file into its folder below ``root``, unless it is there.

    An interrupted download leaves ``<file>.part`` and is resumed; the file gets its name only
    once size and checksum agree. Two processes do not fetch the same file twice.

    Args:
        dataset: What to fetch; it must have a ``download``.
        root: Data root; created if needed.
        mode: See `forbidden`.

    Returns:
        Path of the complete file.

    Raises:
        DataMissing: Forbidden, no network, a wrong checksum, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    download = dataset.download
    if download is None:
        raise dataset.missing(root, f"not found below {root}")
    folder = find(dataset.folders, root) or root / dataset.folders[0]
    target = folder / download.file
    if target.is_file():
        return target
    reason = forbidden(download.size, mode)
    if reason:
        raise dataset.missing(root, f"not found below {root}, and {reason}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            notice(f"{dataset.title}: another process is fetching {target}; waiting for it")
            lock.acquire()
    except OSError as error:
        raise dataset.missing(root, f"not found below {root}, which cannot be written: {error}") from error
    try:
        if not target.is_file():
            notice(f"fetching {dataset.title}, {download}\n  into {folder}")
            _transfer(dataset, root, download, target)
    finally:
        lock.release()
    return target


def _transfer(dataset: DataSet, root: Path, download: Download, target: Path) -> None:
    """Downloads to ``<target>.part``, checks it, renames it."""
    from tqdm import tqdm

    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    best = have
    bar = tqdm(total=download.size, initial=have, unit="B", unit_scale=True, desc=download.file, disable=None)
    problem = "the connection closed early"
    try:
        while have < download.size:
            try:
                have = _attempt(download, part, have, bar)
            except (OSError, http.client.HTTPException) as error:
                problem = _reason(error)
                have = part.stat().st_size if part.is_file() else 0
            # Resume as long as each attempt brings something new; then give up at once.
            if have <= best and have < download.size:
                kept = f"; {mebibytes(have)} are kept in {part} and will be resumed" if have else ""
                raise dataset.missing(
                    root, f"not found below {root}, and fetching {download.url} failed: {problem}{kept}"
                )
            best = max(best, have)
    finally:
        bar.close()
    if (wrong := download.wrong(part)) is not None:
        part.unlink()
        raise dataset.missing(root, f"{download.url} brought the wrong file: {wrong}; it was deleted")
    os.replace(part, target)


def _attempt(download: Download, part: Path, have: int, bar: Any) -> int:
    """One connection. Returns the size of ``part`` afterwards; raises OSError when it breaks."""
    headers = {"User-Agent": _APP, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _open(urllib.request.Request(download.url, headers=headers)) as answer:
        if answer.status == 206:
            spans = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if not spans or int(spans[1]) != have:
                raise OSError(f"the server sent the wrong range {answer.headers.get('Content-Range')!r}")
            offered = spans[2]
        else:  # a server without ranges starts again
            offered, have = answer.headers.get("Content-Length", "*"), 0
        if offered not in ("*", str(download.size)):
            raise OSError(f"the server offers {offered} bytes instead of {download.size}")
        bar.n = have
        with part.open("ab" if have else "wb") as file:
            while have <= download.size and (block := answer.read(_BLOCK)):
                file.write(block)
                have += len(block)
                bar.update(len(block))
    return have


def _open(request: urllib.request.Request) -> Any:
    """``urlopen`` that answers or fails within twice `CONNECT_SECONDS`.

    The name look-up inside has no timeout of its own and may hang for half a minute without network.
    """
    answers: queue.Queue[Any] = queue.Queue()

    def work() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=CONNECT_SECONDS))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = answers.get(timeout=2 * CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {2 * CONNECT_SECONDS:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        return f"HTTP {error.code} {error.reason}"
    return str(getattr(error, "reason", error)) or type(error).__name__
