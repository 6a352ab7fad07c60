"""Leases: one process per run where file locks do not work, whatever dies, sleeps or has a wrong clock."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import RunBusy, RunFailed
from benchmark.run import lease, lock, places
from benchmark.run.lease import Times

QUICK = Times(beat=0.05, stale=0.4, watch=0.25)
HOUR = 3600.0
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes")

HOLDER = """
import sys, time
from pathlib import Path
from benchmark.run import lease
times = lease.Times(beat=0.05, stale=0.4, watch=0.25)
with lease.held(Path(sys.argv[1]), times) as ours:
    print("ours" if ours else "busy", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.lease"


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease until its stdin ends."""
    words = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ours\n"
        try:
            yield process
        finally:
            process.kill()


def shift(path: Path, seconds: float) -> None:
    """As a file system looks whose stamps come from a machine with another clock."""
    for file in path.parent.iterdir():
        about = file.stat()
        os.utime(file, (about.st_atime + seconds, about.st_mtime + seconds))


def test_a_lease_is_exclusive_and_leaves_no_file(path: Path) -> None:
    with lease.held(path, QUICK) as ours:
        assert ours is not None
        with lease.held(path, QUICK) as other:
            assert other is None
        ours.check()
    assert not list(path.parent.iterdir())
    with lease.held(path, QUICK) as again:
        assert again is not None


def test_what_a_living_process_holds_is_its_own_for_as_long_as_it_lives(path: Path) -> None:
    with holder(path) as process:
        time.sleep(2 * QUICK.stale)
        with lease.held(path, QUICK) as ours:
            assert ours is None
        process.communicate("")
    assert not list(path.parent.iterdir())


def test_what_a_killed_process_held_is_taken_over_when_it_is_stale(path: Path) -> None:
    with holder(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lease.held(path, QUICK) as ours:
            assert ours is None, "it may live: its last sign of life is young"
        time.sleep(QUICK.stale)
        began = time.monotonic()
        with pytest.warns(UserWarning, match=r"lease of .*, process \d+ showed no sign of life"):
            ours = lease._take(path, QUICK)
        assert time.monotonic() - began >= QUICK.watch
    assert ours is not None
    with lease.held(path, QUICK) as other:
        assert other is None, "whoever took over holds it"
    ours.release()
    assert not list(path.parent.iterdir())


def test_of_those_who_find_a_dead_lease_one_takes_it_over_and_its_death_is_found_too(path: Path) -> None:
    with holder(path) as process:
        process.kill()
        process.wait()
    for turn in range(2):  # whoever takes over dies, too
        time.sleep(QUICK.stale)
        with warnings.catch_warnings(), ThreadPoolExecutor(4) as threads:
            warnings.simplefilter("ignore")
            found = list(threads.map(lease._take, [path] * 4, [QUICK] * 4))
        (ours,) = [one for one in found if one is not None]
        if turn == 0:
            ours._ended.set()  # no sign of life from now on
            ours._thread.join()
    ours.release()
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_a_holder_whose_clock_is_wrong_is_seen_to_live(path: Path, seconds: float) -> None:
    with holder(path):
        quit_shifting = threading.Event()

        def skew() -> None:
            while not quit_shifting.wait(0.01):
                about = path.stat()
                if abs(about.st_mtime - time.time()) < HOUR / 2:
                    os.utime(path, (about.st_atime, about.st_mtime + seconds))

        thread = threading.Thread(target=skew)
        thread.start()
        time.sleep(0.1)
        began = time.monotonic()
        with lease.held(path, Times(beat=0.05, stale=0.4, watch=5.0)) as ours:
            assert ours is None
        assert time.monotonic() - began < 4, "the next beat is enough"
        quit_shifting.set()
        thread.join()


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_a_dead_holder_whose_clock_was_wrong_keeps_nothing(path: Path, seconds: float) -> None:
    with holder(path) as process:
        process.kill()
        process.wait()
    shift(path, seconds)
    with pytest.warns(UserWarning, match="takes over"), lease.held(path, QUICK) as ours:
        assert ours is not None


def test_a_holder_that_slept_finds_that_it_was_taken_over_before_it_writes(path: Path) -> None:
    ours = lease._take(path, QUICK)
    assert ours is not None
    ours._ended.set()
    ours._thread.join()
    time.sleep(QUICK.stale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = lease._take(path, QUICK)
    assert other is not None
    with pytest.raises(RunBusy, match="another one has taken over"):
        ours.check()
    ours.release()
    assert path.exists(), "what was taken over is another's"
    other.check()
    other.release()
    assert not list(path.parent.iterdir())


def test_a_lease_that_is_let_go_while_it_is_taken_over_is_nobodys(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race: stale when it was read, gone when the file after it is made."""
    ours, real = lease._take(path, QUICK), lease._make
    assert ours is not None

    def late(*words: Any) -> bool:
        monkeypatch.setattr(lease, "_make", real)
        for file in lease._chain(path):
            file.unlink()
        return real(*words)

    monkeypatch.setattr(lease, "_dead", lambda *_: True)
    monkeypatch.setattr(lease, "_make", late)
    other = lease._take(path, QUICK)
    assert other is not None
    assert other._file == path, "made anew, not after what is gone"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    other.release()


def test_where_there_are_no_links_a_file_is_made_exclusively(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_link)
    with lease.held(path, QUICK) as ours:
        assert ours is not None
        with lease.held(path, QUICK) as other:
            assert other is None
    path.write_bytes(b"")  # whoever made it died before it wrote
    with lease.held(path, QUICK) as ours:
        assert ours is None
    time.sleep(QUICK.stale)
    with pytest.warns(UserWarning, match="a machine unknown"), lease.held(path, QUICK) as ours:
        assert ours is not None
    assert not list(path.parent.iterdir())


def test_a_link_whose_answer_was_lost_is_ours(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def twice(source: Path, target: Path) -> None:
        real(source, target)
        real(source, target)  # raises FileExistsError

    monkeypatch.setattr(os, "link", twice)
    with lease.held(path, QUICK) as ours:
        assert ours is not None


def test_of_many_processes_one_works_though_some_are_killed(path: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    program = f"""
import os, random, sys, time, warnings
from pathlib import Path
from benchmark.run import lease
warnings.simplefilter("ignore")
times, inside = lease.Times(beat=0.05, stale=0.5, watch=0.3), Path({str(inside)!r})
mine = f"{{os.getpid()}}"
for _ in range(40):
    with lease.held(Path({str(path)!r}), times) as ours:
        if ours:
            if inside.exists() and Path(f"/proc/{{inside.read_text() or 0}}").exists():
                os._exit(1)
            inside.write_text(mine)
            time.sleep(0.01)
            if sys.argv[1] == "dies" and random.random() < 0.2:
                os.kill(os.getpid(), 9)
            inside.unlink(missing_ok=True)
    time.sleep(0.005)
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, word]) for word in ("dies", "lives", "lives", "dies")]
    codes = [process.wait() for process in processes]
    assert codes[1:3] == [0, 0]
    assert set(codes) <= {0, -signal.SIGKILL}


# --- in a results folder --------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "out" / "toy" / "toy-linear" / "run.json"


def test_once_asked_for_leases_are_used_by_all(record: Path) -> None:
    out = record.parents[2]
    with places.locked(record) as ours:
        assert ours is not None
        assert not record.with_suffix(".lease").exists()
    places.use_leases(out)
    with places.locked(record) as ours:
        assert ours is not None
        ours()
        told = json.loads(record.with_suffix(".lease").read_text().partition("\n")[2])
        assert str(os.getpid()) in told["host"]
        with places.locked(record) as other:
            assert other is None
    assert not list(record.parent.iterdir())


def test_who_has_the_lock_alone_is_respected(record: Path) -> None:
    places.use_leases(record.parents[2])
    record.parent.mkdir(parents=True)
    with lock.held(record.with_suffix(".lock")), places.locked(record) as ours:
        assert ours is None
    assert not list(record.parent.iterdir())


def test_a_file_system_without_locks_asks_for_leases(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", no_locks)
    with pytest.raises(RunFailed, match="has no file locks") as caught, places.locked(record):
        pass
    assert "--lock-kind lease" in (caught.value.hint or "")
    places.use_leases(record.parents[2])
    with places.locked(record) as ours:
        assert ours is not None
