"""What a run has come to, in a few numbers beside its heartbeat, so that a thousand runs are looked at in a moment.

Kept by whoever trains, from what it knows anyway; advisory, as the heartbeat is. Journal and ledgers have the truth.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Summary(BaseModel):
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
