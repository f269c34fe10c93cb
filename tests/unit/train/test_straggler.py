"""A rank that keeps the others waiting is named: which, where, how much it costs, and whether its data is to blame."""

import random
from collections.abc import Callable, Sequence

import pytest

from headway.train.straggler import SlowRank, StepTiming, StragglerDetector

HOSTS = ("n1", "n1", "n2", "n2")
Owns = Callable[[int], Sequence[float]]


def paces(own: Sequence[float], data: Sequence[float] | None = None, transport: float = 0.005) -> list[StepTiming]:
    """A step in which each rank took `own` by itself, `data` of it for its batch, and waited for the slowest."""
    late = data or [0.0] * len(own)
    return [StepTiming(fetched, each, max(own) - each + transport) for each, fetched in zip(own, late, strict=True)]


def watch(own: Owns, steps: int, transport: float = 0.005) -> list[tuple[int, SlowRank]]:
    """What is found in `steps` steps, and after how many."""
    stragglers = StragglerDetector(HOSTS)
    changes = [
        (step + 1, stragglers.slow) for step in range(steps) if stragglers.look(paces(own(step), transport=transport))
    ]
    return [(step, slow) for step, slow in changes if slow]


def noisy(own: Sequence[float], amount: float, seed: int) -> list[float]:
    """Each time up to `amount` times as long."""
    source = random.Random(seed)
    return [each * source.uniform(1.0, amount) for each in own]


@pytest.mark.parametrize("rank", range(len(HOSTS)))
@pytest.mark.parametrize("begins", [0, 7, 100])
def test_a_rank_that_gets_slow_is_named_within_twenty_steps(rank: int, begins: int) -> None:
    """It takes 1.8 times as long from a step on, among the noise of the others."""

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
    """Every rank now and then takes half as long again, none of them steadily."""
    assert not watch(lambda step: noisy([0.05] * 4, 1.5, seed * 1000 + step), 300)


def test_one_long_pause_makes_no_rank_slow() -> None:
    """As of a collection of garbage, or a disk that had to wake up."""
    assert not watch(lambda step: [0.05, 0.05, 2.0 if step == 30 else 0.05, 0.05], 100)


def test_the_first_steps_say_nothing() -> None:
    """One rank compiles, the others find what it compiled."""
    assert not watch(lambda step: [20.0 if step < 2 else 0.05, 0.05, 0.05, 0.05], 60)


def test_a_difference_that_costs_nobody_anything_is_not_told() -> None:
    """Transport takes ten times what the ranks do by themselves."""
    assert not watch(lambda _: [0.01, 0.01, 0.016, 0.01], 60, transport=0.1)


def test_a_rank_is_named_once_and_again_after_it_recovered() -> None:
    """Not at every step; but what comes back is news."""
    slow = watch(lambda step: [0.05, 0.1 if step < 60 or step >= 120 else 0.05, 0.05, 0.05], 200)
    assert [each.rank for _, each in slow] == [1, 1]
    assert slow[1][0] > 120


def test_recovery_is_noticed() -> None:
    """Once; from then on nobody is slow."""
    stragglers = StragglerDetector(HOSTS)
    changes = [
        (step, stragglers.slow)
        for step in range(100)
        if stragglers.look(paces([0.05, 0.1 if step < 40 else 0.05, 0.05, 0.05]))
    ]
    assert [slow and slow.rank for _, slow in changes] == [1, None]
    assert 40 < changes[1][0] <= 60


def test_another_rank_that_gets_slow_is_named_too() -> None:
    """The slowest takes the place of the one before it."""
    slow = watch(lambda step: [0.05, 0.1, 0.05, 0.05 if step < 60 else 0.3], 120)
    assert [each.rank for _, each in slow] == [1, 3]


def test_of_a_slow_machine_one_rank_is_named_once() -> None:
    """Its ranks take turns at being the slowest; that is no news."""
    hosts = [f"n{index // 2}" for index in range(8)]
    stragglers = StragglerDetector(hosts)
    changes = 0
    for step in range(200):
        own = noisy([0.05] * 6 + [0.1] * 2, 1.1, step)
        changes += stragglers.look(paces(own))
    assert changes == 1
    assert stragglers.slow
    assert stragglers.slow.host == "n3"


def test_slow_data_is_told_from_a_slow_processor() -> None:
    """The rank waits for its batch."""
    stragglers = StragglerDetector(HOSTS)
    for _ in range(30):
        stragglers.look(paces([0.05, 0.05, 0.15, 0.05], [0.0, 0.0, 0.1, 0.0]))
    assert stragglers.slow
    assert (stragglers.slow.rank, stragglers.slow.phase) == (2, "data")


def test_of_two_ranks_the_slower_one_is_named() -> None:
    """The other is all there is to compare it with."""
    stragglers = StragglerDetector(["a", "b"])
    for _ in range(30):
        stragglers.look(paces([0.1, 0.05]))
    assert stragglers.slow
    assert stragglers.slow.host == "a"


def test_a_single_rank_is_never_slow() -> None:
    """There is nobody that it could keep waiting."""
    stragglers = StragglerDetector(["a"])
    assert not any(stragglers.look(paces([step + 1.0])) for step in range(30))
