"""Parent death: a process that ends with its parent, however that ends."""

import ctypes
import os
import signal

PARENT_VARIABLE = "HEADWAY_PARENT_PROCESS"
"""Environment variable: the process that starts this one, where a command line cannot say it."""
PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that a process gets when the thread that started it ends."""
PR_SET_CHILD_SUBREAPER = 36
"""Option of prctl(2): whether the descendants of a process whose parents end become its children."""


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end now if it has ended, so that `parent` is another."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def end_process() -> None:
    """End this process at once: whoever it works for has ended, whatever its libraries would still do."""
    os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of each descendant whose parent ends, so that none can leave the tree of this process."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    """Set an option of this process.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
