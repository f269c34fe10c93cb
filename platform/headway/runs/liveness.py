"""Who is alive on a run: the heartbeat it writes, and whether a holder's process still exists. Advisory throughout."""

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from headway.errors import MissingObject
from headway.objectstore.protocol import Store
from headway.runs import keys
from headway.runs.entries import Holder
from headway.telemetry import Trace, environment_trace

MISSED_BEATS = 3
"""Heartbeats missed before a process counts as dead."""


class RunSummary(BaseModel):
    """A run as of one heartbeat."""

    model_config = ConfigDict(frozen=True)

    budget: int
    """Tokens to train on."""
    loss: float | None = None
    held_out: float | None = None
    outcome: Literal["done", "preempted", "failed"] | None = None
    """Of this attempt, once it has ended."""
    reason: str = ""
    slow: str = ""
    """Which rank keeps the others waiting, if one does."""
    attempts: int
    """This one included."""
    preemptions: int
    """Attempts before this one that were preempted."""
    failures: int
    """Attempts before this one that failed or were killed."""
    earlier_step: float
    """Rank-seconds of training in the attempts before this one."""
    earlier_total: float
    """Rank-seconds of the attempts before this one, their queue left out."""
    step: float = 0.0
    """Rank-seconds of training in this attempt, up to its last checkpoint."""
    total: float = 0.0
    """Rank-seconds of this attempt, up to its last checkpoint, its queue left out."""

    @property
    def goodput(self) -> float | None:
        """Share of the rank-time held that was spent on steps; None while nothing is booked."""
        total = self.earlier_total + self.total
        return (self.earlier_step + self.step) / total if total else None


class Heartbeat(BaseModel):
    """The last sign of life of a run."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    holder: Holder
    phase: str
    tokens: int
    time: float
    """Seconds since 1970, by the holder's clock."""
    every: float
    """How often it is written [s]."""
    summary: RunSummary | None = None
    """What the run has come to; older writers say nothing of it."""

    @property
    def fresh(self) -> bool:
        """Whether it is too young for its writer to count as dead."""
        return time.time() - self.time < MISSED_BEATS * self.every


def write_heartbeat(store: Store, run: str, heartbeat: Heartbeat) -> None:
    """Write the run's heartbeat."""
    store.put(keys.heartbeat(run), [heartbeat.model_dump_json(indent=1).encode()])


def read_heartbeat(store: Store, run: str) -> Heartbeat | None:
    """The run's last heartbeat, if there is a readable one."""
    with contextlib.suppress(MissingObject, ValueError):
        return Heartbeat.model_validate(json.loads(store.get(keys.heartbeat(run))))
    return None


def this_process(launch: str, trace: Trace | None = None) -> Holder:
    """The holder that this process is. `trace`: what it does belongs there; default: where it was started in."""
    trace = trace or environment_trace()
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_started(os.getpid()) or 0,
        launch=launch,
        job=os.environ.get("SLURM_JOB_ID"),
        restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        trace=str(trace) if trace else None,
    )


def is_alive(holder: Holder) -> bool | None:
    """Whether a holder's process exists; None if it is on another machine, where this one cannot look."""
    if holder.host != socket.gethostname():
        return None
    return _started(holder.pid) == holder.started


def process_start(holder: Holder) -> float | None:
    """When a holder's process began [s since 1970], to a clock tick; None if it is not of this machine."""
    if holder.host != socket.gethostname() or not holder.started:
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + holder.started / os.sysconf("SC_CLK_TCK")


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (field 22 of proc(5)), or None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
