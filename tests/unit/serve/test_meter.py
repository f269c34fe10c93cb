"""What is used of late is counted, settled and forgotten; the clock is set by hand."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.serve.meter import Meter


class Clock:
    """A clock that is set by hand; a minute begins at 0."""

    now = 0.0

    def __call__(self) -> float:
        """What it shows [s]."""
        return self.now


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in an event loop of its own."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@pytest.fixture
def clock() -> Clock:
    """At the beginning of a minute."""
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    """One that has counted nothing."""
    return Meter(clock)


@in_a_loop
async def test_what_was_used_fades_in_the_minute_after(meter: Meter, clock: Clock) -> None:
    """Evenly, so that nothing is given back all at once; and after that it is gone."""
    clock.now = 30.0
    await meter.charge("a", 100)
    seen = {}
    for clock.now in (30.0, 59.9, 60.0, 75.0, 90.0, 119.4, 120.0, 500.0):
        seen[clock.now] = (await meter.level("a")).used
    assert seen == {30.0: 100, 59.9: 100, 60.0: 100, 75.0: 75, 90.0: 50, 119.4: pytest.approx(1), 120.0: 0, 500.0: 0}


@in_a_loop
async def test_each_name_is_counted_by_itself(meter: Meter) -> None:
    """Nobody pays for another."""
    await meter.charge("a", 5)
    await meter.charge("b", 7)
    assert [(await meter.level(name)).used for name in ("a", "b", "c")] == [5, 7, 0]


@in_a_loop
async def test_what_was_too_much_is_given_back_where_it_stands(meter: Meter, clock: Clock) -> None:
    """In the minute in which it was charged, so that it does not lower what others have used since."""
    charge = await meter.charge("a", 100)
    clock.now = 90.0
    await meter.charge("a", 8)
    await meter.settle(charge, 40)
    assert (await meter.level("a")).used == 40 / 2 + 8


@in_a_loop
async def test_what_was_too_little_is_charged_on_top(meter: Meter, clock: Clock) -> None:
    """Now, when it is known, whether there is room for it or not."""
    charge = await meter.charge("a", 10)
    clock.now = 90.0
    await meter.settle(charge, 1000)
    assert (await meter.level("a")).used == 10 / 2 + 990


@in_a_loop
async def test_what_is_settled_long_after_takes_nothing_from_others(meter: Meter, clock: Clock) -> None:
    """The minute in which it was charged counts no more: there is nothing to give back."""
    charge = await meter.charge("a", 100)
    clock.now = 600.0
    await meter.charge("a", 8)
    await meter.settle(charge, 0)
    assert (await meter.level("a")).used == 8


@in_a_loop
async def test_nothing_is_kept_of_what_counts_no_more(
    meter: Meter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library clears old counters away by its own clock, none of them too early; a late settlement adds none."""
    monkeypatch.setattr("limits.aio.storage.memory.time", SimpleNamespace(time=clock))
    charge = await meter.charge("a", 100)
    clock.now = 90.0
    assert (await meter.level("a")).used == 50
    clock.now = 200.0
    await meter.settle(charge, 0)
    await meter.charge("b", 7)
    assert len(meter._counters.storage) == 1  # noqa: SLF001 - what it keeps


AMOUNTS = st.integers(min_value=0, max_value=10_000)
ESTIMATES = st.lists(AMOUNTS, min_size=1, max_size=6)


def settlements(longest: float) -> st.SearchStrategy[list[tuple[int, int, float]]]:
    """Which request is settled, by how much it then is, and after which pause [s]; twenty at most."""
    return st.lists(st.tuples(st.integers(0, 5), AMOUNTS, st.floats(0, longest)), max_size=20)


@given(ESTIMATES, settlements(5.9))
@in_a_loop
async def test_what_is_charged_in_the_end_is_what_was_used(
    estimates: list[int], settled: list[tuple[int, int, float]]
) -> None:
    """Whatever was estimated, and in whatever order and however often it is settled, also past the end of a minute."""
    clock = Clock()
    meter = Meter(clock)
    charges = [await meter.charge("a", amount) for amount in estimates]
    used = dict(enumerate(estimates))
    for number, amount, pause in settled:
        clock.now += pause
        used[number % len(charges)] = amount
        await meter.settle(charges[number % len(charges)], amount)
        level = await meter.level("a")
        assert min(level.before, level.now) >= 0
        assert level.before + level.now == sum(used.values()) == sum(charge.amount for charge in charges)


@given(ESTIMATES, settlements(200.0))
@in_a_loop
async def test_what_is_given_back_whole_was_never_asked(
    estimates: list[int], settled: list[tuple[int, int, float]]
) -> None:
    """However long it took: no more is given back than still counts, and no less."""
    clock = Clock()
    meter = Meter(clock)
    charges = [await meter.charge("a", amount) for amount in estimates]
    for number, amount, pause in settled:
        clock.now += pause
        await meter.settle(charges[number % len(charges)], amount)
        assert (await meter.level("a")).used >= 0
    other = await meter.charge("a", 17)
    for charge in charges:
        await meter.settle(charge, 0)
    assert (await meter.level("a")).used == other.amount == 17


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(0, 5000)), max_size=6), st.integers(0, 3000))
@in_a_loop
async def test_after_the_wait_there_is_room_and_before_it_there_was_none(
    charges: list[tuple[float, int]], room: int
) -> None:
    """However much was used in this minute and in the one before; it is never longer than two minutes."""
    clock = Clock()
    meter = Meter(clock)
    for pause, amount in charges:
        clock.now += pause
        await meter.charge("a", amount)
    wait, asked = (await meter.level("a")).wait(room), clock.now
    assert 0 <= wait <= 120
    assert (wait == 0) == ((await meter.level("a")).used <= room)
    clock.now = asked + wait
    assert (await meter.level("a")).used <= room + 1e-6
    if wait > 1:
        clock.now = asked + wait - 1
        assert (await meter.level("a")).used > room
