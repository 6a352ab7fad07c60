"""One process per run without file locks: a file made atomically, into which its holder writes again and again.

A holder beats every `Times.beat` seconds. A lease that has not been beaten for `Times.stale` seconds, by the clock of
the file system, is watched for `Times.watch` seconds by the clock of whoever wants it, and then taken over: a machine
whose clock is wrong neither loses its lease nor keeps it when it dies.

A lease is never changed into another one, since two could do that at once. Whoever takes over lease A makes,
atomically and once, the file that says "after A": the owner is at the end of this chain, and beats there. Letting go is
the same: the owner makes the file after its own, so that nobody can take over meanwhile, and removes the chain from its
beginning.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.errors import RunBusy, warn


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds; the same on all machines.

    Attributes:
        beat: Between two signs of life.
        stale: Without one, after which a lease may be that of a dead machine.
        watch: For which it is watched then.
    """

    beat: float = 10.0
    stale: float = 120.0
    watch: float = 40.0


TIMES = Times()
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES, errno.EINVAL}
_COUNTER = "{:012d}\n"


@dataclass(frozen=True)
class _Seen:
    """A lease as it was read.

    Attributes:
        token: Whose it is.
        beat: Differs after every sign of life.
        stamp: Of the last one, by the clock of the file system.
        host: Where its holder runs.
    """

    token: str
    beat: tuple[str, int]
    stamp: float
    host: str


class Lease:
    """A lease that this process holds."""

    def __init__(self, path: Path, file: Path, token: str, times: Times) -> None:
        self._path, self._file, self._token, self._times = path, file, token, times
        self._handle = os.open(file, os.O_RDWR)
        self._count = 0
        self._lost = False
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._last = _clock()
        self._thread = threading.Thread(target=self._live, name=f"lease of {path.name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Called before something is written that only the holder may write.

        Raises:
            RunBusy: This process gave no sign of life for long, e.g. since its machine slept: another one works on it.
        """
        if _clock() - self._last > self._times.stale / 2:
            self._beat()
        if self._lost:
            raise RunBusy(
                f"{self._path.stem}: this process gave no sign of life for more than {self._times.stale:g} s, and "
                "another one has taken over",
                hint="give the same command again when that one has ended",
            )

    def _live(self) -> None:
        while not self._ended.wait(self._times.beat):
            self._beat()

    def _beat(self) -> None:
        with self._writing, contextlib.suppress(OSError):  # the server does not answer: `check` counts the seconds
            now = _clock()
            self._count += 1
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, _COUNTER.format(self._count).encode())
            os.fsync(self._handle)
            self._lost = self._lost or _after(self._path, self._token).exists()
            self._last = now

    def release(self) -> None:
        """Lets go; what another one has taken over stays."""
        self._ended.set()
        self._thread.join()
        os.close(self._handle)
        with contextlib.suppress(OSError):  # then it is taken over when it is stale
            end, token = _after(self._path, self._token), uuid.uuid4().hex
            with _own_file(self._path, token) as own:
                if not _make(self._path, end, own):
                    return
            for file in _chain(self._path):
                file.unlink(missing_ok=True)


@contextlib.contextmanager
def held(path: Path, times: Times = TIMES) -> Iterator[Lease | None]:
    """Holds the lease inside the block, if nobody else does; waits for `Times.watch` where one looks dead.

    Args:
        path: The file of the lease; its folder exists.
        times: The same for everyone.

    Yields:
        The lease, or None where it is another's.

    Raises:
        OSError: The folder cannot be written.
    """
    lease = _take(path, times)
    try:
        yield lease
    finally:
        if lease is not None:
            lease.release()


def _take(path: Path, times: Times) -> Lease | None:
    token = uuid.uuid4().hex
    with _own_file(path, token) as own:
        while True:
            *_, last = (None, *_chain(path))
            if last is None:
                if _make(path, path, own):
                    return Lease(path, path, token, times)
                continue
            seen = _read(last)
            if seen is None:
                continue  # let go meanwhile
            if not _dead(last, seen, own, times):
                return None
            file = _after(path, seen.token)
            if not _make(path, file, own):
                return None  # somebody else was quicker
            if file in _chain(path):
                warn(f"{path.stem}: the lease of {seen.host} showed no sign of life; this process takes over")
                return Lease(path, file, token, times)
            file.unlink()  # what it comes after was let go meanwhile


def _dead(file: Path, seen: _Seen, own: Path, times: Times) -> bool:
    """Whether the holder of a lease gives no sign of life; its clock is not believed."""
    os.utime(own)
    age = os.stat(own).st_mtime - seen.stamp
    if -times.beat <= age < times.stale:  # one that is ahead by more is that of a clock that is wrong
        return False
    end = time.monotonic() + times.watch
    while time.monotonic() < end:
        time.sleep(times.beat / 4)
        now = _read(file)
        if now is None or (now.token, now.beat) != (seen.token, seen.beat):
            return False
    return True


def _chain(path: Path) -> list[Path]:
    """The files of a lease from its beginning; the owner's is the last one."""
    files, file = [], path
    while (seen := _read(file)) is not None:
        files.append(file)
        file = _after(path, seen.token)
    return files


def _after(path: Path, token: str) -> Path:
    return path.parent / f".{path.name}.{token}"


def _read(file: Path) -> _Seen | None:
    """A lease, or None where there is none. It is opened for each look: file systems keep what they know of names."""
    try:
        with file.open("rb") as stream:
            about, content = os.fstat(stream.fileno()), stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    counter, _, rest = content.partition("\n")
    try:
        told = json.loads(rest)
        token, host = told["token"], told["host"]
    except (ValueError, KeyError, TypeError):  # made without links, and not written yet
        token, host = f"unwritten-{about.st_ino:x}", "a machine unknown"
    return _Seen(token, (counter, about.st_mtime_ns), about.st_mtime, host)


@contextlib.contextmanager
def _own_file(path: Path, token: str) -> Iterator[Path]:
    """A lease of this process that has no name yet."""
    own = path.parent / f".{path.name}.{token}.new"
    host = f"{platform.node()}, process {os.getpid()}"
    own.write_text(_COUNTER.format(0) + json.dumps({"token": token, "host": host}), encoding="utf-8")
    try:
        yield own
    finally:
        own.unlink(missing_ok=True)


def _make(path: Path, file: Path, own: Path) -> bool:
    """Gives it a name that nothing has had, or tells that somebody else was quicker."""
    os.utime(own)
    try:
        os.link(own, file)
        return True
    except FileExistsError:
        return os.path.samefile(own, file)  # the answer of a server was lost, and the question asked twice
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as stream:
        stream.write(own.read_bytes())
        stream.flush()
        os.fsync(handle)
        return not _after(path, f"unwritten-{os.fstat(handle).st_ino:x}").exists()


def _clock() -> float:
    """Seconds that go on while the machine sleeps, where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
