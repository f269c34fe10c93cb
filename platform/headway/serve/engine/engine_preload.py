"""Imports of the forkserver that engines are forked from; they load while the replica loads its own modules."""

import ctypes
import os
import signal

import vllm.v1.engine.core
import vllm.v1.executor.uniproc_executor
import vllm.v1.worker.cpu_worker  # noqa: F401 - loaded for the processes that are forked from here

from headway.serve import patches

PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that a process gets when its parent ends."""


def after_fork() -> None:
    """Prepare a process forked from this one: it ends with its parent, and it may use AMX."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    patches.enable_amx()


os.register_at_fork(after_in_child=after_fork)
