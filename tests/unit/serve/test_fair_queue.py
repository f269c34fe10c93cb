"""The gate to the engine, with a clock that is turned by hand."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.serve.fair_queue import FairQueue
from headway.serve.request_context import RequestContext


@dataclass
class Clock:
    """Seconds, as they are set."""

    now: float = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


class Guest:
    """Somebody who wants in, and stays until told to leave."""

    def __init__(self, gate: FairQueue, tenant: str = "a") -> None:
        self.call = RequestContext("x", tenant=tenant)
        self.inside, self.leave = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._visit(gate))

    async def _visit(self, gate: FairQueue) -> None:
        async with gate.place(self.call):
            self.inside.set()
            await self.leave.wait()

    async def go(self) -> None:
        """Leave."""
        self.leave.set()
        await self.task


async def settled() -> None:
    """Let everybody do what they can."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(body: Coroutine[Any, Any, None]) -> None:
    """In an event loop of its own."""
    asyncio.run(body)


def test_so_many_are_inside_and_no_more() -> None:
    """Who waits is let in when somebody leaves."""

    async def story() -> None:
        gate = FairQueue(2)
        guests = [Guest(gate) for _ in range(3)]
        await settled()
        assert [guest.inside.is_set() for guest in guests] == [True, True, False]
        assert (gate.inside, gate.waiting) == (2, 1)
        await guests[0].go()
        await settled()
        assert guests[2].inside.is_set()
        for guest in guests[1:]:
            await guest.go()
        assert (gate.inside, gate.waiting) == (0, 0)

    run(story())


def test_who_sends_a_lot_waits_behind_itself() -> None:
    """Tenants are let in by turns, each in the order it came."""

    async def story() -> None:
        gate = FairQueue(1)
        first = Guest(gate)
        await settled()
        noisy = [Guest(gate, "noisy") for _ in range(4)]
        await settled()
        quiet = [Guest(gate, "quiet") for _ in range(2)]
        await settled()
        order, waiting, last = [], noisy + quiet, first
        while waiting:
            await last.go()
            await settled()
            [last] = [guest for guest in waiting if guest.inside.is_set()]
            waiting.remove(last)
            order.append(last.call.tenant[0])
        assert "".join(order) == "nqnqnn"

    run(story())


def test_who_gives_up_leaves_no_gap() -> None:
    """While waiting, while inside, and in the very moment of being let in."""

    async def story() -> None:
        gate = FairQueue(1)
        guests = [Guest(gate) for _ in range(4)]
        await settled()
        guests[1].task.cancel()
        await settled()
        assert gate.waiting == 2
        guests[0].leave.set()
        guests[2].task.cancel()
        await settled()
        assert (guests[3].inside.is_set(), gate.inside, gate.waiting) == (True, 1, 0)
        cancelled, last = Guest(gate), Guest(gate)
        await settled()
        guests[3].leave.set()
        await asyncio.sleep(0)  # it has left, and let in the next one, which does not know yet
        assert (gate.inside, gate.waiting) == (1, 1)
        cancelled.task.cancel()
        await settled()
        assert (last.inside.is_set(), gate.inside, gate.waiting) == (True, 1, 0)
        await last.go()

    run(story())


def test_a_full_cache_lets_nobody_in_but_an_empty_engine_does() -> None:
    """New ones would take their room from those inside; with nobody inside there is nothing to wait for."""

    async def story() -> None:
        gate = FairQueue(8)
        gate.told(0.99)
        guests = [Guest(gate) for _ in range(3)]
        await settled()
        assert [guest.inside.is_set() for guest in guests] == [True, False, False]
        gate.told(0.5)
        await settled()
        assert [guest.inside.is_set() for guest in guests] == [True, True, True]
        for guest in guests:
            await guest.go()

    run(story())


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.01, 10)), max_size=40))
def test_shares_add_up_to_the_time_that_somebody_was_inside(moves: list[tuple[int, float]]) -> None:
    """Whoever comes and goes in whatever order, and whatever each waited."""

    async def story() -> None:
        clock = Clock()
        gate = FairQueue(3, clock)
        guests: dict[int, Guest] = {}
        calls: list[RequestContext] = []
        busy = 0.0
        for number, seconds in moves:
            if number in guests:
                await guests.pop(number).go() if guests[number].inside.is_set() else None
            else:
                guests[number] = Guest(gate, str(number))
                calls.append(guests[number].call)
            await settled()
            busy += seconds if gate.inside else 0
            clock.now += seconds
        while guests:
            for number in [number for number, guest in guests.items() if guest.inside.is_set()]:
                await guests.pop(number).go()
            await settled()
        assert gate.busy_seconds == pytest.approx(busy)
        assert sum(call.busy_seconds for call in calls) == pytest.approx(busy)

    run(story())
