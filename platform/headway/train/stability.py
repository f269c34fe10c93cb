"""Judges a batch by its loss and gradient norm. A pure function, so that all ranks and all replays agree."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headway.recipe import Recipe
from headway.recipe.schema import Stability
from headway.runs import History


@dataclass(frozen=True)
class BatchVerdict:
    """The action to take on a bad batch, and the reason."""

    action: Literal["skip", "rollback", "stop"]
    reason: str


def judge(policy: Stability, losses: Sequence[float], loss: float, norm: float) -> BatchVerdict | None:
    """Judge a batch by its loss and gradient norm, given the losses of the previous batches; None if it is fine."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return BatchVerdict(policy.on_nonfinite, f"loss {loss} and gradient norm {norm}: not finite")
    window = losses[-policy.spike_window :]
    if policy.on_spike == "ignore" or len(window) < policy.spike_window:
        return None
    mean, deviation = statistics.fmean(window), statistics.pstdev(window)
    if loss <= mean + policy.spike_sigmas * deviation:
        return None
    reason = f"loss {loss:.4f} is {(loss - mean) / max(deviation, 1e-12):.1f} deviations above the mean {mean:.4f}"
    return BatchVerdict(policy.on_spike, reason)


def remedy(history: History) -> str:
    """What a person can do about a run that diverged."""
    positions = sorted({0, *(commit.tokens for commit in history.commits)})
    return (
        f"Look at the data there, or lower the learning rate in a new run; headway train RECIPE --from-tokens N goes "
        f"back to a checkpoint: {', '.join(map(str, positions))}"
    )


def rollback_horizon(recipe: Recipe) -> int:
    """How far back a rollback may go [tokens]; 0 if the recipe has none."""
    policy = recipe.train.stability
    rolls_back = "rollback" in {policy.on_spike, policy.on_nonfinite}
    return recipe.train.batch_tokens * policy.rollback_batches if rolls_back else 0
