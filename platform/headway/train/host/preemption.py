"""Stop requests: a signal sets a flag, and nothing else. The loop reads it at points where all ranks can agree.

The first signal requests a save and a clean exit. A second one, at least a second later, requests an immediate exit:
the save in progress is finished, but no new one starts. Signals within that second are copies of the first.
"""

import ctypes
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from headway.runs import Holder, is_alive
from headway.stop_signals import stop_signals

STOP, IMMEDIATE = 1, 2
"""Levels of a stop request: save and exit; exit without a new save."""


class Preemption:
    """The stop request to this process: level 0 (none), STOP or IMMEDIATE."""

    def __init__(self, shared_level: Any = None, launcher: Holder | None = None) -> None:
        """`shared_level` is a shared integer through which the launcher stops all its ranks.

        With a `launcher`, its death counts as STOP, because nothing else would stop the rank.
        """
        self._launcher = launcher
        self._shared_level = ctypes.c_int(0) if shared_level is None else shared_level
        self._level = 0
        self._first_signal = 0.0
        self.since: float | None = None
        """When this process first noticed the request, by the monotonic clock."""

    def listen(self) -> "Preemption":
        """Install the signal handlers; a signal from before this call counts."""
        handle_stop_signals(self._handle)
        if early_signal.is_set():
            self._level = STOP
        return self

    @property
    def level(self) -> int:
        """0, STOP or IMMEDIATE: the highest of signals, shared level and death of the launcher."""
        if self._launcher and not self._level and is_alive(self._launcher) is False:
            self._level = STOP
        level = max(self._level, int(self._shared_level.value))
        if level and self.since is None:
            self.since = time.monotonic()
        return level

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._level:
            self._level, self._first_signal = STOP, now
        elif now - self._first_signal >= 1.0:
            self._level = IMMEDIATE


def handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Install a handler for the signals that ask this process to stop; SLURM sends SIGUSR1 before a job's end."""
    for number in (*stop_signals(), signal.SIGUSR1):
        signal.signal(number, handler)


early_signal = threading.Event()
"""Set if a signal came before this process knew its task (see `preload`)."""


def record_early_signal(_number: int, _frame: FrameType | None) -> None:
    """Signal handler until the rank knows its task."""
    early_signal.set()
