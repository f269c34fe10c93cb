"""Entry point of a rank: the function that torchelastic calls in each rank's process."""

import os
import threading
import time
from typing import Any

from headway.output_stream import finish_output
from headway.runs import is_alive
from headway.train.host.rank_heartbeat import HeartbeatTable
from headway.train.host.task import Task

ORPHAN_POLL_SECONDS = 0.2


def run_rank(task: Task, stop_level: Any, heartbeats: HeartbeatTable) -> None:
    """Train `task` on this rank.

    The import is late because the launcher names this function, but must not load torch.
    """
    from headway.train.worker import train_task

    finished = threading.Event()
    threading.Thread(target=exit_as_orphan, args=(task, finished), name="orphan", daemon=True).start()
    heartbeat = heartbeats.writer(int(os.environ["LOCAL_RANK"])).start()
    try:
        train_task(task, stop_level, heartbeat)
    finally:
        heartbeat.stop()
        finished.set()
        finish_output()


def exit_as_orphan(task: Task, finished: threading.Event) -> None:
    """Once the launcher is gone, exit as soon as the work is finished or the grace period is over.

    Without this, a rank would wait forever for its launcher to take its result.
    """
    while is_alive(task.launcher) is not False:
        time.sleep(ORPHAN_POLL_SECONDS)
    finished.wait(task.grace)
    os._exit(1)
