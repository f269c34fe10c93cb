"""The sliding-window meter, with a clock that the test sets."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.serve.tenants.meter import Meter


class Clock:
    """A clock that the test sets; a window begins at 0."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time that was set [s]."""
        return self.now


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in its own event loop."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def clock() -> Clock:
    """A clock at the beginning of a window."""
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    """A meter that has counted nothing."""
    return Meter(clock)


@in_a_loop
async def test_usage_fades_in_the_next_window(meter: Meter, clock: Clock) -> None:
    """It fades linearly, and after that window it is gone."""
    clock.now = 30.0
    await meter.charge("a", 100)
    totals = {}
    for clock.now in (30.0, 59.9, 60.0, 75.0, 90.0, 119.4, 120.0, 500.0):
        totals[clock.now] = (await meter.usage("a")).total
    assert totals == {30.0: 100, 59.9: 100, 60.0: 100, 75.0: 75, 90.0: 50, 119.4: pytest.approx(1), 120.0: 0, 500.0: 0}


@in_a_loop
async def test_each_name_has_its_own_counters(meter: Meter) -> None:
    """A charge under one name changes no other."""
    await meter.charge("a", 5)
    await meter.charge("b", 7)
    assert [(await meter.usage(name)).total for name in ("a", "b", "c")] == [5, 7, 0]


@in_a_loop
async def test_a_refund_goes_to_the_window_that_was_charged(meter: Meter, clock: Clock) -> None:
    """It does not lower what was charged since."""
    charge = await meter.charge("a", 100)
    clock.now = 90.0
    await meter.charge("a", 8)
    await meter.adjust(charge, 40)
    assert (await meter.usage("a")).total == 40 / 2 + 8


@in_a_loop
async def test_an_increase_is_charged_in_the_current_window(meter: Meter, clock: Clock) -> None:
    """It counts even beyond a limit."""
    charge = await meter.charge("a", 10)
    clock.now = 90.0
    await meter.adjust(charge, 1000)
    assert (await meter.usage("a")).total == 10 / 2 + 990


@in_a_loop
async def test_a_late_refund_takes_nothing_from_others(meter: Meter, clock: Clock) -> None:
    """The window that was charged no longer counts, so nothing is refunded."""
    charge = await meter.charge("a", 100)
    clock.now = 600.0
    await meter.charge("a", 8)
    await meter.adjust(charge, 0)
    assert (await meter.usage("a")).total == 8


@in_a_loop
async def test_expired_counters_are_deleted(meter: Meter, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library deletes them by its own clock, not too early; a late refund adds none."""
    monkeypatch.setattr("limits.aio.storage.memory.time", SimpleNamespace(time=clock))
    charge = await meter.charge("a", 100)
    clock.now = 90.0
    assert (await meter.usage("a")).total == 50
    clock.now = 200.0
    await meter.adjust(charge, 0)
    await meter.charge("b", 7)
    assert len(meter._counters.storage) == 1  # noqa: SLF001 - the counters that it keeps


AMOUNTS = st.integers(min_value=0, max_value=10_000)
ESTIMATES = st.lists(AMOUNTS, min_size=1, max_size=6)


def adjustments(longest: float) -> st.SearchStrategy[list[tuple[int, int, float]]]:
    """Adjustments: number of the charge, its new amount, and the pause before it [s]; twenty at most."""
    return st.lists(st.tuples(st.integers(0, 5), AMOUNTS, st.floats(0, longest)), max_size=20)


@given(ESTIMATES, adjustments(5.9))
@in_a_loop
async def test_the_last_adjustment_counts(estimates: list[int], changes: list[tuple[int, int, float]]) -> None:
    """For any estimates and any order and number of adjustments, also across windows."""
    clock = Clock()
    meter = Meter(clock)
    charges = [await meter.charge("a", amount) for amount in estimates]
    used = dict(enumerate(estimates))
    for number, amount, pause in changes:
        clock.now += pause
        used[number % len(charges)] = amount
        await meter.adjust(charges[number % len(charges)], amount)
        usage = await meter.usage("a")
        assert min(usage.previous, usage.current) >= 0
        assert usage.previous + usage.current == sum(used.values()) == sum(charge.amount for charge in charges)


@given(ESTIMATES, adjustments(200.0))
@in_a_loop
async def test_a_full_refund_leaves_no_trace(estimates: list[int], changes: list[tuple[int, int, float]]) -> None:
    """However late it comes, it refunds exactly what still counts."""
    clock = Clock()
    meter = Meter(clock)
    charges = [await meter.charge("a", amount) for amount in estimates]
    for number, amount, pause in changes:
        clock.now += pause
        await meter.adjust(charges[number % len(charges)], amount)
        assert (await meter.usage("a")).total >= 0
    other = await meter.charge("a", 17)
    for charge in charges:
        await meter.adjust(charge, 0)
    assert (await meter.usage("a")).total == other.amount == 17


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(0, 5000)), max_size=6), st.integers(0, 3000))
@in_a_loop
async def test_the_wait_is_neither_too_long_nor_too_short(charges: list[tuple[float, int]], limit: int) -> None:
    """For any usage of this window and the one before; it is never longer than two minutes."""
    clock = Clock()
    meter = Meter(clock)
    for pause, amount in charges:
        clock.now += pause
        await meter.charge("a", amount)
    wait, start = (await meter.usage("a")).seconds_until(limit), clock.now
    assert 0 <= wait <= 120
    assert (wait == 0) == ((await meter.usage("a")).total <= limit)
    clock.now = start + wait
    assert (await meter.usage("a")).total <= limit + 1e-6
    if wait > 1:
        clock.now = start + wait - 1
        assert (await meter.usage("a")).total > limit
