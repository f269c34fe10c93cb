"""The process that ranks are forked from. It loads torch while this one still looks at its command line and the run."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def rank_forkserver(main: str) -> Iterator[None]:
    """Keep the process that ranks are forked from during the block: it is what a start waits for longest.

    `main` is the module that this process was started with: multiprocessing imports it in every rank.
    """
    from multiprocessing import forkserver, resource_tracker

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of addresses that have no name
    forkserver.set_forkserver_preload(["headway.train.preload", main])
    heard = signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # inherited: a signal to all of a job would end the tracker
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    signal.signal(signal.SIGUSR1, heard)
    try:
        yield
    finally:
        keeper: Any = vars(forkserver)["_forkserver"]  # there is no public way
        if keeper._forkserver_pid:  # noqa: SLF001
            os.kill(keeper._forkserver_pid, signal.SIGKILL)  # noqa: SLF001 - to leave in order takes it a second
        keeper._stop()  # noqa: SLF001
