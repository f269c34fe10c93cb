"""The torchelastic agent of this node, in its own thread: starts the ranks and records their first failure."""

import logging
import multiprocessing
import signal
import socket
import threading
import time
from typing import Any

from headway import errors
from headway.train.host.entrypoint import run_rank
from headway.train.host.outcome import Failure
from headway.train.host.rank_heartbeat import HeartbeatTable
from headway.train.host.rendezvous import Rendezvous
from headway.train.host.task import Task
from headway.train.host.watchdog import LOST_PEERS

FORKSERVER = "forkserver"
MONITOR_SECONDS = 0.05
KILL_SECONDS = 5.0
"""How long to wait for a killed rank to disappear [s]; a rank in a disk operation takes a while."""


class Agent(threading.Thread):
    """Runs torchelastic beside the main thread, which handles the signals."""

    def __init__(self, task: Task, rendezvous: Rendezvous, ranks: int) -> None:
        super().__init__(name="torchelastic", daemon=True)
        context = multiprocessing.get_context(FORKSERVER)
        self.task, self.rendezvous, self.ranks = task, rendezvous, ranks
        self.stop_level = context.Value("i", 0, lock=False)
        """Stop request to the ranks: 0, STOP or IMMEDIATE."""
        self.heartbeats = HeartbeatTable(context, ranks)
        self.failure: Failure | None = None
        """First failure on this node, or the reason of `abort`."""
        self.aborted = False

    def run(self) -> None:
        """Run the ranks until all have exited."""
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
        try:
            address, port = self.rendezvous.open()
            config = LaunchConfig(
                min_nodes=self.rendezvous.nodes,
                max_nodes=self.rendezvous.nodes,
                nproc_per_node=self.ranks,
                run_id=self.task.launcher.launch,
                rdzv_backend="static",
                rdzv_endpoint=f"{address}:{port}",
                rdzv_configs={"rank": self.rendezvous.node, "timeout": int(self.rendezvous.join_seconds)},
                max_restarts=0,
                monitor_interval=MONITOR_SECONDS,
                start_method=FORKSERVER,
            )
            elastic_launch(config, run_rank)(self.task, self.stop_level, self.heartbeats)
        except ChildFailedError as error:
            self._record_failure(*_root_cause(error))
        except Exception as error:  # any error of torchelastic is the outcome of this launch
            self._record_failure(type(error).__name__, str(error))

    def abort(self, failure: Failure) -> None:
        """Kill the ranks of this node because of a failure here or on another node."""
        self.failure, self.aborted = self.failure or failure, True
        for child in multiprocessing.active_children():
            child.kill()
            child.join(KILL_SECONDS)

    def _record_failure(self, kind: str, message: str) -> None:
        blameless = kind in errors.CLASSES or kind in LOST_PEERS  # not the fault of this node
        host = None if blameless else socket.gethostname()
        self.failure = self.failure or Failure(kind, message, host, time.time())


def _root_cause(error: Any) -> tuple[str, str]:
    """Kind and message of the first failure; later ones are mostly ranks that lost their peers."""
    rank, first = error.get_first_failure()
    if first.exitcode < 0:
        return "", f"rank {rank} was killed by {signal.Signals(-first.exitcode).name}"
    detail = first.error_file_data.get("message", f"exited with code {first.exitcode}")
    kind, _, message = (detail if isinstance(detail, str) else detail["message"]).partition(": ")
    return kind, f"rank {rank}: {message}" if kind not in errors.CLASSES else message
