"""Events of an attempt at a run.

Each line also has `run`, `attempt`, `rank`, `trace_id`, `phase` and `tokens`, the position of the attempt.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headway.events.event import LogEvent, event

ENVELOPE = {"run", "attempt", "rank", "trace_id", "phase", "tokens", "event", "level", "timestamp"}
"""Keys that every line of an attempt's log has besides the fields of its event."""


@event("attempt.claimed")
class AttemptClaimed(LogEvent):
    """An attempt has claimed the run."""

    ranks: int
    """Number of ranks."""


@event("attempt.started")
class AttemptStarted(LogEvent):
    """The first step of an attempt is done, so its startup is over."""

    stages: Mapping[str, float]
    """Duration of each stage of the startup [s], by name, each a field of the line."""
    total: float
    """Duration of all stages [s]."""

    def fields(self) -> dict[str, Any]:
        """The stages, and their total."""
        return {**self.stages, "total": self.total}

    @classmethod
    def arguments(cls, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Every key that is not of the envelope is a stage, or their total."""
        fields = {key: value for key, value in record.items() if key not in ENVELOPE}
        return {"total": fields.pop("total", None), "stages": fields}


@event("attempt.ended")
class AttemptEnded(LogEvent):
    """The end of an attempt is in the journal."""

    outcome: str
    """`done` or `preempted`. Failures are recorded by the launcher."""
    reason: str
    """Reason of the outcome."""


@event("step.done")
class StepDone(LogEvent):
    """A batch was trained."""

    loss: float
    """Mean loss over the batch [nats per token]."""
    norm: float
    """Norm of the gradient before clipping."""
    learning_rate: float
    """Learning rate of the step."""
    tokens_per_second: float
    """Throughput of the step, over all ranks [tokens/s]."""


@event("evaluation.done")
class EvaluationDone(LogEvent):
    """The held-out loss was computed."""

    held_out: float
    """Mean loss over the held-out tokens [nats per token]."""


@event("batch.judged", level="warning")
class BatchJudged(LogEvent):
    """A batch is bad by its loss or its gradient norm."""

    batch: int
    """Position of the batch [tokens]."""
    action: Literal["skip", "rollback", "stop"]
    """What is done about it."""
    reason: str
    """What is wrong with it."""


@event("batch.skipped")
class BatchSkipped(LogEvent):
    """A batch was skipped, as a decision in the journal requires."""

    batch: int
    """Position of the batch [tokens]."""
    reason: str
    """Reason of the decision."""


@event("checkpoint.staged")
class CheckpointStaged(LogEvent):
    """A save has started, and training goes on."""


@event("checkpoint.committed")
class CheckpointCommitted(LogEvent):
    """The commit of a checkpoint is in the journal."""

    at: int
    """Position of the checkpoint [tokens]."""


@event("checkpoint.failed", level="warning")
class CheckpointFailed(LogEvent):
    """A save has failed; the attempt fails, too."""

    problem: str
    """What went wrong."""


@event("checkpoint.refused", level="warning")
class CheckpointRefused(LogEvent):
    """A save was due, and the state is not finite, so nothing is saved: the checkpoints before stay the newest."""

    at: int
    """Position of the state [tokens]."""
    problem: str
    """Name of the tensor that is not finite, and its rank."""


@event("checkpoint.untidy", level="warning")
class CheckpointUntidy(LogEvent):
    """A checkpoint is committed, but older ones could not be deleted."""

    at: int
    """Position of the checkpoint [tokens]."""
    problem: str
    """What went wrong."""


@event("checkpoint.restored")
class CheckpointRestored(LogEvent):
    """An attempt continues from a checkpoint."""

    at: int
    """Position of the checkpoint [tokens]."""
    manifest: str
    """Key of its manifest."""


@event("rollback.requested")
class RollbackRequested(LogEvent):
    """A person decided that the run continues from an earlier checkpoint, and this attempt is the first to do so."""

    to: int
    """Position of the checkpoint; 0 is the beginning [tokens]."""
    by: str
    """The person, as `user@host`."""


@event("checkpoint.damaged", level="warning")
class CheckpointDamaged(LogEvent):
    """A checkpoint is damaged, so the attempt tries the one before it."""

    at: int
    """Position of the checkpoint [tokens]."""
    problem: str
    """What is damaged."""


@event("restore.nothing_sound", level="warning")
class RestoreNothingSound(LogEvent):
    """All checkpoints of the run are damaged."""

    action: str
    """What the attempt does instead."""


@event("environment.changed", level="warning")
class EnvironmentChanged(LogEvent):
    """The restored checkpoint was made by other hardware or software, so bits may differ from here on."""

    changed: str
    """The differences in words."""
    effect: str
    """What they may cause."""


@event("rank.slow", level="warning")
class RankSlow(LogEvent):
    """A rank slows the others down."""

    rank: int
    """The slow rank. It takes the place of the rank that writes the log."""
    host: str
    """Host of the rank."""
    factor: float
    """Ratio of its own time to the median of the others'."""
    cost: float
    """Ratio by which it lengthens the step for all."""
    phase: str
    """Where it is slow: `data` or `step`. It takes the place of the attempt's phase."""


@event("rank.recovered")
class RankRecovered(LogEvent):
    """No rank slows the others down any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimed:
    """A step took this long. Comes right before its `StepDone`; the log shows only the throughput."""

    tokens: int
    """Tokens of the batch."""
    seconds: float
    """Duration of the step, from asking for its batch [s]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveStarted:
    """A save starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StallEnded:
    """Training stood still for the save in progress, and goes on."""

    seconds: float
    """Duration of the stall [s]."""


@event("heartbeat.failed", level="warning")
class HeartbeatFailed(LogEvent):
    """The heartbeat or the log could not be written; the next one is tried as usual."""

    error: str
    """What went wrong."""


@event("summary.failed", level="warning")
class SummaryFailed(LogEvent):
    """The summary of the run could not be computed, so the heartbeat has none."""

    error: str
    """What went wrong."""


AttemptEvent = AttemptClaimed | AttemptStarted | AttemptEnded
BatchEvent = BatchJudged | BatchSkipped | StepTimed | StepDone | EvaluationDone
SaveEvent = (
    SaveStarted
    | StallEnded
    | CheckpointStaged
    | CheckpointCommitted
    | CheckpointFailed
    | CheckpointRefused
    | CheckpointUntidy
)
RestoreEvent = RollbackRequested | CheckpointRestored | CheckpointDamaged | RestoreNothingSound | EnvironmentChanged
RankEvent = RankSlow | RankRecovered
TrainingEvent = AttemptEvent | BatchEvent | SaveEvent | RestoreEvent | RankEvent
"""What the sinks of an attempt handle."""
StoreWriterEvent = HeartbeatFailed | SummaryFailed
"""Problems of the sink that writes the log to the store. They are only logged."""
