"""What a launch asks of its ranks, and the entry point that torchelastic calls in each of them."""

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

from headway.runs import Holder, is_alive
from headway.telemetry.exposition import Exposure
from headway.train.heartbeat import HeartbeatTable

ORPHAN_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Task:
    """One launch of one run."""

    recipe: str
    """YAML."""
    run: str
    store: str
    """URL."""
    launcher: Holder
    """The process that started the ranks."""
    launched: float
    """When it began [s since 1970]: a rank's time counts from there."""
    grace: float
    """How long a stopping rank may take [s]."""
    tokens: int
    """Where the run stood then."""
    take_over: bool
    quiet: bool
    exposure: Exposure | None = None
    """Where metrics are shown, if anybody asked."""


def work(task: Task, flag: Any, pulses: HeartbeatTable) -> None:
    """Train on this rank. Imports late: the launcher names this function, but needs none of what it uses."""
    from headway.train.worker import train_task

    finished = threading.Event()
    threading.Thread(target=leave_after, args=(task, finished), name="orphan", daemon=True).start()
    pulse = pulses.row(int(os.environ["LOCAL_RANK"])).begin()
    try:
        train_task(task, flag, pulse)
    finally:
        pulse.stop()
        finished.set()


def leave_after(task: Task, finished: threading.Event) -> None:
    """End this process once its launcher is gone and its work is finished, or does not finish in time.

    A rank that returns waits for its launcher to take the result, for ever if there is nobody to take it.
    """
    while is_alive(task.launcher) is not False:
        time.sleep(ORPHAN_POLL_SECONDS)
    finished.wait(task.grace)
    os._exit(1)
