"""The signals by which people, shells, SLURM and Kubernetes ask a process to stop in order."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, SIGINT (Ctrl-C), and SIGHUP (the end of a terminal or of ssh) unless it is ignored, as by `nohup`."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *hangup]


PREEMPTED = os.EX_TEMPFAIL
"""Exit code of a launch that was asked to stop: the same command continues."""
STOPPING = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
"""All signals that may ask a process to stop; SLURM sends the last two."""


class SignalFlag:
    """A flag that a signal handler may set at any moment. `threading.Event` could wait for itself there, forever."""

    def __init__(self) -> None:
        self._is_set = False
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """Set it, once and for all."""
        self._is_set = True
        os.eventfd_write(self._descriptor, 1)

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, so long at most [s]; returns whether it is."""
        if not self._is_set:
            select.select([self._descriptor], [], [], seconds)
        return self._is_set

    def __del__(self) -> None:
        os.close(self._descriptor)


def ignore_stop_signals() -> None:
    """Follow no signal any more: the process is about to end, and its exit code is known."""
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block the signals that stop this process. Processes that are started meanwhile inherit that."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def unblock_signals() -> None:
    """Receive the signals that were blocked when this process started, those that have come since first."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
