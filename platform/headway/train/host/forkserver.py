"""The forkserver of the ranks. It loads torch while the launcher still reads its command line and the run."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

from headway.localfiles import use_short_temporary_folder

SOCKET_ROOM = len("/pymp-12345678/listener-12345678")
"""Length of the path of multiprocessing's socket below the temporary folder [bytes]."""


@contextlib.contextmanager
def rank_forkserver(main_module: str) -> Iterator[None]:
    """Run the forkserver during the block; started early, because loading torch takes most of a launch.

    `main_module` is the main module of this process, which multiprocessing imports in every rank.
    """
    from multiprocessing import forkserver, resource_tracker

    use_short_temporary_folder(SOCKET_ROOM)

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of addresses without a host name
    forkserver.set_forkserver_preload(["headway.train.preload", main_module])
    # The children inherit the ignored signal: SIGUSR1 to a whole job must not kill the resource tracker.
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        server: Any = vars(forkserver)["_forkserver"]  # there is no public way
        if server._forkserver_pid:  # noqa: SLF001
            os.kill(server._forkserver_pid, signal.SIGKILL)  # noqa: SLF001 - an orderly exit takes a second
        server._stop()  # noqa: SLF001
