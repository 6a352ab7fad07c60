"""Ctrl-C and SIGTERM (a cluster that takes its machine back) end a run between two training steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from benchmark.errors import EXIT_INTERRUPTED, BenchError


class Interrupted(BenchError):
    """The user stopped the run; finished work is on disk."""

    exit_code = EXIT_INTERRUPTED


class Stop:
    """Turns Ctrl-C and SIGTERM into a request that is answered between two training steps.

    A second one, or one outside of `deferring`, interrupts at once.

    Args:
        patient: A second one means no more than the first: of a process that is told to stop from several sides, and
            is killed by its parent where that takes too long.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.requested = False
        self._patient = patient
        self._deferring = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and self._patient:
            return
        if self.requested or not self._deferring:
            self.requested = self._patient
            raise KeyboardInterrupt
        self.requested = True

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handles the signals inside the block; in threads other than the main one it does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferring(self) -> Iterator[None]:
        """Inside the block the first signal only sets `requested`."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
