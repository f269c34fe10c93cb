"""The signals by which people, shells, SLURM and Kubernetes ask a process to stop in order."""

import os
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
