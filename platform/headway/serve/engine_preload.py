"""What the process that an engine is forked from loads, while the replica loads its own part."""

import ctypes
import os
import signal

import torch
import vllm.v1.engine.core
import vllm.v1.executor.uniproc_executor
import vllm.v1.worker.cpu_worker  # noqa: F401 - loaded for the processes forked from here

PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""


def begin() -> None:
    """In a process that has just been forked from this one, which ends with its replica: end with it.

    And ask for AMX: Linux lets a process use tiles once it has asked; a forked one that has not dies of its first tile.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.cpu._init_amx()  # noqa: SLF001 - there is no public way


os.register_at_fork(after_in_child=begin)
