"""The forkserver of the ranks. It loads torch while the launcher still reads its command line and the run."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from headway.stop_signals import PREEMPTED, signals_blocked, stop_signals
from headway.temporary_folder import temporary_folder

SOCKET_ROOM = len("/headway-12345678/listener-12345678")
"""Length of the path of multiprocessing's socket below the temporary folder [bytes]."""


@contextlib.contextmanager
def rank_forkserver(main_module: str) -> Iterator[None]:
    """Run the forkserver during the block; started early, because loading torch takes most of a launch.

    `main_module` is the main module of this process, which multiprocessing imports in every rank. The block's temporary
    files are removed at its end. A signal that asks the process to stop ends the block, until the block handles it.
    """
    from multiprocessing import forkserver, resource_tracker

    for number in (*stop_signals(), signal.SIGUSR1):
        signal.signal(number, lambda *_: sys.exit(PREEMPTED))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of addresses without a host name
    forkserver.set_forkserver_preload(["headway.train.preload", main_module])
    with _own_temporary_folder():
        with signals_blocked():
            resource_tracker.ensure_running()
        with signals_blocked():  # again, for the tracker unblocks some; `preload` receives them
            forkserver.ensure_running()
        try:
            yield
        finally:
            server: Any = vars(forkserver)["_forkserver"]  # there is no public way
            if server._forkserver_pid:  # noqa: SLF001
                os.kill(server._forkserver_pid, signal.SIGKILL)  # noqa: SLF001 - an orderly exit takes a second
            server._stop()  # noqa: SLF001


@contextlib.contextmanager
def _own_temporary_folder() -> Iterator[None]:
    """Have this process, and no other, put its temporary files into a folder that is removed at the end."""
    with temporary_folder(SOCKET_ROOM) as folder:
        tempfile.tempdir = str(folder)
        # multiprocessing would make a folder in it, and remove that at the exit of the process, after this one is gone.
        multiprocessing.current_process()._config["tempdir"] = str(folder)  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            yield
        finally:
            tempfile.tempdir = None
