"""The judgment of a batch depends on its loss, its gradient norm and the previous losses only."""

import math
from typing import Any

import pytest

from headway.recipe.schema import Stability
from headway.train.stability import judge

WINDOW = [1.0, 3.0, 1.0, 3.0]
"""Mean 2, deviation 1."""


def policy(**keys: Any) -> Stability:
    """A policy that rolls back on a spike of more than two deviations over four batches."""
    return Stability(**{"on_spike": "rollback", "spike_sigmas": 2.0, "spike_window": 4, **keys})


@pytest.mark.parametrize("action", ["skip", "rollback", "stop"])
@pytest.mark.parametrize(
    ("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (-math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)]
)
def test_what_is_not_finite_is_decided_as_the_policy_says(action: str, loss: float, norm: float) -> None:
    """NaN or infinity in loss or norm gets the action of `on_nonfinite`, window or no window."""
    verdict = judge(policy(on_nonfinite=action, on_spike="ignore"), [], loss, norm)
    assert verdict is not None
    assert verdict.action == action
    assert "not finite" in verdict.reason


@pytest.mark.parametrize("action", ["skip", "rollback", "stop"])
def test_a_loss_above_the_threshold_is_a_spike(action: str) -> None:
    """More than `spike_sigmas` deviations above the mean is a spike; exactly as many is none."""
    assert judge(policy(on_spike=action), WINDOW, 4.0, 1.0) is None
    verdict = judge(policy(on_spike=action), WINDOW, 4.001, 1.0)
    assert verdict is not None
    assert verdict.action == action
    assert "2.0 deviations above the mean 2.0000" in verdict.reason


def test_a_low_loss_and_a_large_norm_are_fine() -> None:
    """Only a rise of the loss is a spike."""
    assert judge(policy(), WINDOW, -100.0, 1e9) is None


def test_nothing_is_a_spike_before_the_window_is_full() -> None:
    """With fewer losses than the window, no loss is a spike."""
    assert judge(policy(), WINDOW[:3], 1e9, 1.0) is None
    assert judge(policy(), [], 1e9, 1.0) is None


def test_only_the_last_window_counts() -> None:
    """Losses older than the window do not move the threshold."""
    assert judge(policy(), [1000.0] * 10 + WINDOW, 4.001, 1.0) is not None


def test_spikes_are_ignored_by_default() -> None:
    """A policy that ignores spikes lets any finite loss pass."""
    assert judge(policy(on_spike="ignore"), WINDOW, 1e9, 1.0) is None
    assert Stability().on_spike == "ignore"
