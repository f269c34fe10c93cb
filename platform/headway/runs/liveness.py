"""Liveness of a run: its heartbeat, and whether its holder's process exists. Advisory: no correctness depends on it."""

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from headway import strict_json
from headway.errors import DamageError, MissingObject
from headway.objectstore.protocol import Store, read_document
from headway.runs import keys
from headway.runs.entries import Holder
from headway.runs.field_types import Count, Line, Loss, Moment, Seconds, Text, Tokens
from headway.telemetry import Trace, environment_trace

MISSED_BEATS = 3
"""Missed heartbeats after which a process counts as dead."""
WATCHED_BEATS = 2
"""Heartbeat intervals for which `beats_again` waits."""
MAX_SKEW_SECONDS = 300.0
"""Largest expected difference between the clocks of two hosts [s]."""
HEARTBEAT_BYTES = 64 << 10
"""Longest heartbeat [bytes]; a usual one has 1 kB, and up to two messages."""


class RunSummary(BaseModel):
    """Progress and totals of a run, part of each heartbeat."""

    model_config = ConfigDict(frozen=True)

    budget: Tokens
    """Tokens to train on."""
    loss: Loss = None
    """Training loss of the last step [nats per token]."""
    held_out: Loss = None
    """Loss of the last evaluation [nats per token]."""
    outcome: Literal["done", "preempted", "failed"] | None = None
    """Outcome of the current attempt, once it has ended."""
    reason: Text = ""
    """Reason of the outcome."""
    slow: Text = ""
    """Message about a straggling rank; empty if there is none."""
    attempts: Count
    """Number of attempts, including the current one."""
    preemptions: Count
    """Earlier attempts that were preempted."""
    failures: Count
    """Earlier attempts that failed or were killed."""
    earlier_step: Seconds
    """Rank-seconds of training steps in earlier attempts."""
    earlier_total: Seconds
    """Rank-seconds of earlier attempts, without the queue."""
    step: Seconds = 0.0
    """Rank-seconds of training steps in the current attempt, up to its last checkpoint."""
    total: Seconds = 0.0
    """Rank-seconds of the current attempt up to its last checkpoint, without the queue."""

    @property
    def goodput(self) -> float | None:
        """Share of the allocated rank-time that was spent on training steps; None before the first checkpoint."""
        total = self.earlier_total + self.total
        return min(1.0, (self.earlier_step + self.step) / total) if total else None


class Heartbeat(BaseModel):
    """Stored sign of life of a run."""

    model_config = ConfigDict(frozen=True)

    attempt: Count
    holder: Holder
    phase: Line
    tokens: Tokens
    time: Moment
    """Time of the write by the holder's clock [s since 1970]."""
    every: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Interval between heartbeats [s]."""
    summary: RunSummary | None = None
    """Summary of the run; None from older writers."""

    @property
    def age(self) -> float:
        """Time since the write, if the clocks of writer and reader agree [s]."""
        return time.time() - self.time

    @property
    def fresh(self) -> bool:
        """Whether its writer counts as alive."""
        return -MAX_SKEW_SECONDS < self.age < MISSED_BEATS * self.every


def write_heartbeat(store: Store, run: str, heartbeat: Heartbeat) -> None:
    """Write the run's heartbeat."""
    store.put(keys.heartbeat(run), [heartbeat.model_dump_json(indent=1).encode()])


def read_heartbeat(store: Store, run: str) -> Heartbeat | None:
    """The run's last heartbeat; None if it is missing or unreadable."""
    with contextlib.suppress(MissingObject, DamageError):
        return parse_heartbeat(read_document(store, keys.heartbeat(run), HEARTBEAT_BYTES))
    return None


def parse_heartbeat(data: bytes) -> Heartbeat | None:
    """A heartbeat from its bytes; None if they are too many or unreadable."""
    with contextlib.suppress(ValueError):
        if len(data) <= HEARTBEAT_BYTES:
            return Heartbeat.model_validate(strict_json.parse(data))
    return None


def beats_again(store: Store, run: str, attempt: int) -> bool:
    """Wait for the next heartbeat of `attempt`; returns whether it comes within two intervals.

    A heartbeat looks old if the writer's clock is behind this host's. Returns at once if the last one is older than
    `MAX_SKEW_SECONDS`, or from a time to come; so it waits for two thirds of that at most.
    """
    last = read_heartbeat(store, run)
    if last is None or last.attempt != attempt or last.fresh or abs(last.age) > MAX_SKEW_SECONDS:
        return False
    time.sleep(WATCHED_BEATS * last.every)
    newest = read_heartbeat(store, run)
    return newest is not None and newest.attempt == attempt and newest.time != last.time


def this_process(launch: str, trace: Trace | None = None) -> Holder:
    """Describe this process as a holder. `trace` defaults to the trace in its environment."""
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
    """Whether a holder's process exists; None if it is on another host."""
    if holder.host != socket.gethostname():
        return None
    return _started(holder.pid) == holder.started


def process_start(holder: Holder) -> float | None:
    """Start time of a holder's process [s since 1970], to a clock tick; None if it is on another host."""
    if holder.host != socket.gethostname() or not holder.started:
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + holder.started / os.sysconf("SC_CLK_TCK")


def _started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (field 22 of proc(5)); None if it does not exist."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
