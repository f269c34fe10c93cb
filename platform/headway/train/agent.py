"""torchelastic on this machine, in a thread of its own: it starts the ranks, and tells what the first failure was."""

import logging
import multiprocessing
import signal
import socket
import threading
import time
from typing import Any

from headway import errors
from headway.train.heartbeat import HeartbeatTable
from headway.train.outcome import Failure
from headway.train.rendezvous import Rendezvous
from headway.train.task import Task, work
from headway.train.watchdog import LOST_PEERS

FORKSERVER = "forkserver"
MONITOR_SECONDS = 0.05
KILL_SECONDS = 5.0
"""How long a killed rank may take to be gone [s]: one in the middle of a disk's answer takes its time."""


class Agent(threading.Thread):
    """torchelastic's agent for this machine. The main thread keeps the signals."""

    def __init__(self, task: Task, meeting: Rendezvous, ranks: int) -> None:
        super().__init__(name="torchelastic", daemon=True)
        context = multiprocessing.get_context(FORKSERVER)
        self.task, self.meeting, self.ranks = task, meeting, ranks
        self.flag = context.Value("i", 0, lock=False)
        """How urgently the ranks are asked to stop."""
        self.pulses = HeartbeatTable(context, ranks)
        self.failure: Failure | None = None
        """The first failure on this machine, or what the ranks were given up for."""
        self.given_up = False

    def run(self) -> None:
        """Run the ranks to their end."""
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
        try:
            address, port = self.meeting.open()
            config = LaunchConfig(
                min_nodes=self.meeting.nodes,
                max_nodes=self.meeting.nodes,
                nproc_per_node=self.ranks,
                run_id=self.task.launcher.launch,
                rdzv_backend="static",
                rdzv_endpoint=f"{address}:{port}",
                rdzv_configs={"rank": self.meeting.node, "timeout": int(self.meeting.patience)},
                max_restarts=0,
                monitor_interval=MONITOR_SECONDS,
                start_method=FORKSERVER,
            )
            elastic_launch(config, work)(self.task, self.flag, self.pulses)
        except ChildFailedError as error:
            self._failed(*_root_cause(error))
        except Exception as error:  # whatever torchelastic raises is this launch's outcome
            self._failed(type(error).__name__, str(error))

    def give_up(self, failure: Failure) -> None:
        """Kill the ranks of this machine, for what is wrong here or elsewhere."""
        self.failure, self.given_up = self.failure or failure, True
        for child in multiprocessing.active_children():
            child.kill()
            child.join(KILL_SECONDS)

    def _failed(self, kind: str, message: str) -> None:
        blameless = kind in vars(errors) or kind in LOST_PEERS  # what a machine could not help
        host = None if blameless else socket.gethostname()
        self.failure = self.failure or Failure(kind, message, host, time.time())


def _root_cause(error: Any) -> tuple[str, str]:
    """Kind and message of the failure that came first: later ones are mostly ranks that lost their peers."""
    rank, first = error.get_first_failure()
    if first.exitcode < 0:
        return "", f"rank {rank} was killed by {signal.Signals(-first.exitcode).name}"
    said = first.error_file_data.get("message", f"left with code {first.exitcode}")
    kind, _, message = (said if isinstance(said, str) else said["message"]).partition(": ")
    return kind, f"rank {rank}: {message}" if kind not in vars(errors) else message
