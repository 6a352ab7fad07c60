"""One process per run, however many come at once and however they end."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from benchmark.run import lock


def test_the_lock_is_exclusive_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with lock.held(path) as first:
        assert first
        with lock.held(path) as second:
            assert not second
        assert path.exists(), "whoever did not get it must not unlink it"
    assert not path.exists()


def test_a_file_left_by_a_killed_process_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    path.write_bytes(b"")
    with lock.held(path) as ours:
        assert ours


def test_a_lock_whose_file_was_replaced_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race: opened, then unlinked by the process that had it, before it could be locked."""
    path, real, tries = tmp_path / "run.lock", lock._lock, []

    def late(handle: int) -> None:
        tries.append(handle)
        if len(tries) == 1:
            path.unlink()
        real(handle)

    monkeypatch.setattr(lock, "_lock", late)
    with lock.held(path) as ours:
        assert ours
        assert len(tries) == 2
        assert path.exists()


def test_the_lock_of_another_process_is_not_removed_with_ours(tmp_path: Path) -> None:
    """Somebody tidied up by hand: the file under the name is the other's."""
    path = tmp_path / "run.lock"
    with lock.held(path):
        path.unlink()
        path.write_bytes(b"")
    assert path.exists()


def compete(path: Path, inside: Path, rounds: int) -> None:
    """Takes the lock again and again; exits with 1 if somebody else was inside."""
    for _ in range(rounds):
        with lock.held(path) as ours:
            if ours:
                try:
                    inside.mkdir()
                except FileExistsError:
                    os._exit(1)
                time.sleep(0)
                inside.rmdir()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs cheap processes")
def test_of_many_processes_one_works(tmp_path: Path) -> None:
    children = []
    for _ in range(6):
        if (child := os.fork()) == 0:
            compete(tmp_path / "run.lock", tmp_path / "inside", 300)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
    assert not list(tmp_path.iterdir())
