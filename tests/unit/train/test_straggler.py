"""The detector names the slow rank, its host, its cost, and whether its data is slow."""

import random
from collections.abc import Callable, Sequence

import pytest

from headway.events.training_events import RankSlow
from headway.train.straggler import StepTiming, StragglerDetector

HOSTS = ("n1", "n1", "n2", "n2")
Owns = Callable[[int], Sequence[float]]


def timings(own: Sequence[float], data: Sequence[float] | None = None, transport: float = 0.005) -> list[StepTiming]:
    """A step in which each rank takes `own`, of it `data` for its batch, and waits for the slowest."""
    late = data or [0.0] * len(own)
    return [StepTiming(fetched, each, max(own) - each + transport) for each, fetched in zip(own, late, strict=True)]


def watch(own: Owns, steps: int, transport: float = 0.005) -> list[tuple[int, RankSlow]]:
    """The slow ranks detected in `steps` steps, and after how many."""
    stragglers = StragglerDetector(HOSTS)
    changes = [
        (step + 1, stragglers.slow)
        for step in range(steps)
        if stragglers.update(timings(own(step), transport=transport))
    ]
    return [(step, slow) for step, slow in changes if slow]


def noisy(own: Sequence[float], amount: float, seed: int) -> list[float]:
    """Each time, multiplied by a random factor up to `amount`."""
    source = random.Random(seed)
    return [each * source.uniform(1.0, amount) for each in own]


@pytest.mark.parametrize("rank", range(len(HOSTS)))
@pytest.mark.parametrize("begins", [0, 7, 100])
def test_a_rank_that_gets_slow_is_named_within_twenty_steps(rank: int, begins: int) -> None:
    """From some step on it takes 1.8 times as long; the others are noisy."""

    def own(step: int) -> list[float]:
        times = noisy([0.05] * len(HOSTS), 1.1, step)
        return [each * (1.8 if index == rank and step >= begins else 1.0) for index, each in enumerate(times)]

    [(step, slow)] = watch(own, begins + 40)
    assert step - begins <= 20
    assert (slow.rank, slow.host, slow.phase) == (rank, HOSTS[rank], "step")
    assert slow.factor >= 1.5
    assert slow.cost >= 1.1


@pytest.mark.parametrize("seed", range(20))
def test_noise_names_nobody(seed: int) -> None:
    """Every rank sometimes takes 1.5 times as long, but none always."""
    assert not watch(lambda step: noisy([0.05] * 4, 1.5, seed * 1000 + step), 300)


def test_one_long_pause_makes_no_rank_slow() -> None:
    """For example a garbage collection, or a disk that spins up."""
    assert not watch(lambda step: [0.05, 0.05, 2.0 if step == 30 else 0.05, 0.05], 100)


def test_the_first_steps_do_not_count() -> None:
    """One rank compiles, the others use its cache."""
    assert not watch(lambda step: [20.0 if step < 2 else 0.05, 0.05, 0.05, 0.05], 60)


def test_a_difference_that_costs_no_time_is_not_reported() -> None:
    """Transport takes ten times as long as the ranks' own work."""
    assert not watch(lambda _: [0.01, 0.01, 0.016, 0.01], 60, transport=0.1)


def test_a_rank_is_named_once_and_again_after_it_recovered() -> None:
    """Not at every step, but again if it becomes slow again."""
    slow = watch(lambda step: [0.05, 0.1 if step < 60 or step >= 120 else 0.05, 0.05, 0.05], 200)
    assert [each.rank for _, each in slow] == [1, 1]
    assert slow[1][0] > 120


def test_recovery_is_detected() -> None:
    """Once; from then on no rank is slow."""
    stragglers = StragglerDetector(HOSTS)
    changes = [
        (step, stragglers.slow)
        for step in range(100)
        if stragglers.update(timings([0.05, 0.1 if step < 40 else 0.05, 0.05, 0.05]))
    ]
    assert [slow and slow.rank for _, slow in changes] == [1, None]
    assert 40 < changes[1][0] <= 60


def test_another_rank_that_gets_slow_is_named_too() -> None:
    """The new straggler replaces the previous one."""
    slow = watch(lambda step: [0.05, 0.1, 0.05, 0.05 if step < 60 else 0.3], 120)
    assert [each.rank for _, each in slow] == [1, 3]


def test_one_rank_of_a_slow_node_is_named_once() -> None:
    """Its ranks take turns as the slowest; that is no change."""
    hosts = [f"n{index // 2}" for index in range(8)]
    stragglers = StragglerDetector(hosts)
    changes = 0
    for step in range(200):
        own = noisy([0.05] * 6 + [0.1] * 2, 1.1, step)
        changes += stragglers.update(timings(own))
    assert changes == 1
    assert stragglers.slow
    assert stragglers.slow.host == "n3"


def test_slow_data_is_distinguished_from_slow_compute() -> None:
    """The rank waits for its batch."""
    stragglers = StragglerDetector(HOSTS)
    for _ in range(30):
        stragglers.update(timings([0.05, 0.05, 0.15, 0.05], [0.0, 0.0, 0.1, 0.0]))
    assert stragglers.slow
    assert (stragglers.slow.rank, stragglers.slow.phase) == (2, "data")


def test_of_two_ranks_the_slower_one_is_named() -> None:
    """Each has only the other to compare with."""
    stragglers = StragglerDetector(["a", "b"])
    for _ in range(30):
        stragglers.update(timings([0.1, 0.05]))
    assert stragglers.slow
    assert stragglers.slow.host == "a"


def test_a_single_rank_is_never_slow() -> None:
    """No other rank waits for it."""
    stragglers = StragglerDetector(["a"])
    assert not any(stragglers.update(timings([step + 1.0])) for step in range(30))
