"""Being asked to stop: a signal sets a flag, and nothing else. The loop reads it where all ranks can agree.

The first signal asks to save and leave. A second one, at least a second later, asks to hurry: what is being saved is
finished, nothing new is begun. Copies within that second are one signal that several routes brought.
"""

import ctypes
import signal
import threading
import time
from types import FrameType
from typing import Any

from headway.runs import Holder, is_alive

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
STOP, IMMEDIATE = 1, 2


class Preemption:
    """How urgently this process was asked to stop: 0, STOP or HURRY."""

    def __init__(self, flag: Any = None, launcher: Holder | None = None) -> None:
        """`flag` is a shared integer through which the launcher asks all its ranks, whatever they are doing.

        A rank whose `launcher` is gone is asked to stop, too: nobody else would.
        """
        self._launcher = launcher
        self._flag = ctypes.c_int(0) if flag is None else flag
        self._level = 0
        self._first = 0.0
        self.since: float | None = None
        """When this process first saw that it was asked to stop, by the monotonic clock."""

    def listen(self) -> "Preemption":
        """Take over the signals of this process, and count those that came before."""
        for number in SIGNALS:
            signal.signal(number, self._handle)
        if early.is_set():
            self._level = STOP
        return self

    @property
    def level(self) -> int:
        """0, STOP or HURRY, from this process's signals, the launcher's flag, or the launcher's death."""
        if self._launcher and not self._level and is_alive(self._launcher) is False:
            self._level = STOP
        level = max(self._level, int(self._flag.value))
        if level and self.since is None:
            self.since = time.monotonic()
        return level

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._level:
            self._level, self._first = STOP, now
        elif now - self._first >= 1.0:
            self._level = IMMEDIATE


early = threading.Event()
"""Whether a signal came before this process knew its task (see `preload`)."""


def remember_early(_number: int, _frame: FrameType | None) -> None:
    """Signal handler for the time before a rank knows its task."""
    early.set()
