"""The learning rate and what is due are functions of tokens."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.recipe import Recipe, parse
from headway.train.schedule import due, learning_rate

BATCH, BUDGET, WARMUP = 64, 64 * 100, 64 * 10


def recipe(**schedule: Any) -> Recipe:
    """A recipe of 100 batches with this schedule, and a peak of 1."""
    return parse(
        json.dumps(
            {
                "name": "tiny",
                "data": {"block_tokens": 64},
                "model": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "ffn_width": 64},
                "train": {
                    "tokens": BUDGET,
                    "batch_tokens": BATCH,
                    "micro_batch_tokens": BATCH,
                    "optimizer": {"learning_rate": 1.0},
                    "schedule": {"warmup_tokens": WARMUP, **schedule},
                },
            }
        )
    )


@pytest.mark.parametrize("kind", ["cosine", "wsd"])
def test_the_rate_rises_through_the_warmup_to_its_peak(kind: str) -> None:
    """The rate rises linearly from the first batch; the first batch after the warm-up has the peak."""
    rates = [learning_rate(recipe(kind=kind), tokens) for tokens in range(0, WARMUP + 1, BATCH)]
    assert rates[0] > 0
    assert rates[-1] == 1.0
    steps = [after - before for before, after in pairwise(rates)]
    assert steps == pytest.approx([1 / 11] * 10)


@pytest.mark.parametrize("kind", ["cosine", "wsd"])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0])
def test_the_rate_ends_at_its_final_ratio(kind: str, ratio: float) -> None:
    """At the end of the budget and beyond, the rate is that share of the peak."""
    plan = recipe(kind=kind, final_ratio=ratio)
    assert learning_rate(plan, BUDGET) == pytest.approx(ratio)
    assert learning_rate(plan, BUDGET + 10 * BATCH) == pytest.approx(ratio)


@pytest.mark.parametrize("kind", ["cosine", "wsd"])
def test_lengths_as_shares_are_those_of_the_budget(kind: str) -> None:
    """They give the same rates as the tokens that they stand for."""
    tokens = recipe(kind=kind, decay_tokens=BUDGET // 4)
    shares = recipe(kind=kind, warmup_tokens=0, warmup_share=0.1, decay_share=0.25)
    at = range(0, BUDGET + 1, BATCH)
    assert [learning_rate(shares, each) for each in at] == [learning_rate(tokens, each) for each in at]


@pytest.mark.parametrize("schedule", [{}, {"warmup_tokens": 0, "warmup_share": 0.8, "decay_share": 0.2}])
def test_wsd_never_jumps(schedule: dict[str, float]) -> None:
    """From a batch to the next, the rate changes by no more than the steepest of its two slopes."""
    plan = recipe(kind="wsd", **schedule)
    rates = [learning_rate(plan, tokens) for tokens in range(0, BUDGET + 1, BATCH)]
    steepest = BATCH / min(plan.train.warmup_tokens, plan.train.decay_tokens)
    assert max(abs(after - before) for before, after in pairwise(rates)) <= steepest + 1e-9


def test_cosine_passes_its_middle_halfway() -> None:
    """Halfway between warm-up and end, cosine is halfway between peak and final rate."""
    assert learning_rate(recipe(final_ratio=0.1), (WARMUP + BUDGET) // 2) == pytest.approx(0.55)


def test_wsd_is_constant_and_then_falls_in_a_line() -> None:
    """WSD holds the peak until the decay begins, and is halfway down in the middle of it."""
    plan = recipe(kind="wsd", decay_tokens=20 * BATCH, final_ratio=0.2)
    assert {learning_rate(plan, tokens) for tokens in range(WARMUP, 80 * BATCH + 1, BATCH)} == {1.0}
    assert learning_rate(plan, 90 * BATCH) == pytest.approx(0.6)


def test_wsd_decays_over_a_fifth_of_the_budget_by_default() -> None:
    """Without `decay_tokens`, the decay begins at four fifths of the budget."""
    plan = recipe(kind="wsd", final_ratio=0.0)
    assert learning_rate(plan, 80 * BATCH) == 1.0
    assert learning_rate(plan, 81 * BATCH) == pytest.approx(0.95)


@given(st.permutations(range(0, BUDGET, BATCH)), st.sampled_from(["cosine", "wsd"]))
def test_the_rate_depends_on_nothing_but_tokens(order: list[int], kind: str) -> None:
    """In any order of calls, the rate of a position is the same, positive, and at most the peak."""
    plan = recipe(kind=kind)
    rates = {tokens: learning_rate(plan, tokens) for tokens in order}
    assert all(rates[tokens] == learning_rate(plan, tokens) for tokens in range(0, BUDGET, BATCH))
    assert all(0 < rate <= 1 for rate in rates.values())


@given(st.integers(1, 50), st.lists(st.integers(1, 60), max_size=40))
def test_each_multiple_is_due_exactly_once(every: int, strides: list[int]) -> None:
    """For any sequence of positions, every multiple lies in exactly one interval that was due."""
    since = now = 0
    intervals: list[range] = []
    for stride in strides:
        now += stride
        if due(every, since, now):
            intervals.append(range(since + 1, now + 1))
            since = now
    for multiple in range(every, now + 1, every):
        assert sum(multiple in interval for interval in intervals) == 1
    assert all(any(tokens % every == 0 for tokens in interval) for interval in intervals)


def test_nothing_is_due_without_a_period() -> None:
    """Without a period, `due` is never true."""
    assert not due(None, 0, 10**9)
