"""Imports of the forkserver that engines are forked from; they load while the replica loads its own modules."""

import os

import vllm.v1.engine.core
import vllm.v1.executor.uniproc_executor
import vllm.v1.worker.cpu_worker  # noqa: F401 - loaded for the processes that are forked from here

from headway.parent_death import PARENT_VARIABLE, end_with_parent
from headway.serve.patches import engine_patches


def before_fork() -> None:
    """Remember which process forks: the forkserver, or one that was forked from it."""
    os.environ[PARENT_VARIABLE] = str(os.getpid())


def after_fork() -> None:
    """Prepare a process forked from this one: it ends with its parent, and it may use AMX."""
    end_with_parent(int(os.environ[PARENT_VARIABLE]))
    engine_patches.enable_amx()


os.register_at_fork(before=before_fork, after_in_child=after_fork)
