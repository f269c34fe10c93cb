"""The fair queue in front of the engine, with a clock that the test sets."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.serve.replicas import capacity

from headway.serve.engine.fair_queue import FairQueue
from headway.serve.request_context import RequestContext


@dataclass
class Clock:
    """A clock that the test sets [s]."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return the time that was set."""
        return self.now


class Request:
    """A request that holds its slot until the test finishes it."""

    def __init__(self, queue: FairQueue, tenant: str = "a") -> None:
        self.context = RequestContext("x", tenant=tenant)
        self.started, self.finished = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._run(queue))

    async def _run(self, queue: FairQueue) -> None:
        async with queue.slot(self.context):
            self.started.set()
            await self.finished.wait()

    async def finish(self) -> None:
        """Release the slot."""
        self.finished.set()
        await self.task


async def run_pending_tasks() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(body: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in its own event loop."""
    asyncio.run(body)


def test_the_slots_limit_the_running_requests() -> None:
    """A waiting request starts when a running one finishes."""

    async def scenario() -> None:
        queue = FairQueue(capacity(2))
        requests = [Request(queue) for _ in range(3)]
        await run_pending_tasks()
        assert [request.started.is_set() for request in requests] == [True, True, False]
        assert (queue.capacity.running, queue.capacity.waiting) == (2, 1)
        await requests[0].finish()
        await run_pending_tasks()
        assert requests[2].started.is_set()
        for request in requests[1:]:
            await request.finish()
        assert (queue.capacity.running, queue.capacity.waiting) == (0, 0)

    run(scenario())


def test_a_tenant_with_many_requests_delays_only_itself() -> None:
    """Tenants take turns, each in the order of its requests."""

    async def scenario() -> None:
        queue = FairQueue(capacity(1))
        first = Request(queue)
        await run_pending_tasks()
        noisy = [Request(queue, "noisy") for _ in range(4)]
        await run_pending_tasks()
        quiet = [Request(queue, "quiet") for _ in range(2)]
        await run_pending_tasks()
        order, waiting, last = [], noisy + quiet, first
        while waiting:
            await last.finish()
            await run_pending_tasks()
            [last] = [request for request in waiting if request.started.is_set()]
            waiting.remove(last)
            order.append(last.context.tenant[0])
        assert "".join(order) == "nqnqnn"

    run(scenario())


def test_a_cancelled_request_frees_its_place() -> None:
    """Cancelled while it waits, while it runs, or at the moment of its admission."""

    async def scenario() -> None:
        queue = FairQueue(capacity(1))
        requests = [Request(queue) for _ in range(4)]
        await run_pending_tasks()
        requests[1].task.cancel()
        await run_pending_tasks()
        assert queue.capacity.waiting == 2
        requests[0].finished.set()
        requests[2].task.cancel()
        await run_pending_tasks()
        assert (requests[3].started.is_set(), queue.capacity.running, queue.capacity.waiting) == (True, 1, 0)
        cancelled, last = Request(queue), Request(queue)
        await run_pending_tasks()
        requests[3].finished.set()
        await asyncio.sleep(0)  # it has released its slot to the next request, whose task has not run yet
        assert (queue.capacity.running, queue.capacity.waiting) == (1, 1)
        cancelled.task.cancel()
        await run_pending_tasks()
        assert (last.started.is_set(), queue.capacity.running, queue.capacity.waiting) == (True, 1, 0)
        await last.finish()

    run(scenario())


def test_a_full_cache_admits_no_request_unless_the_engine_is_idle() -> None:
    """A new request would take memory from the running ones; without those, there is nothing to wait for."""

    async def scenario() -> None:
        queue = FairQueue(capacity(8))
        queue.update_cache_usage(0.99)
        requests = [Request(queue) for _ in range(3)]
        await run_pending_tasks()
        assert [request.started.is_set() for request in requests] == [True, False, False]
        queue.update_cache_usage(0.5)
        await run_pending_tasks()
        assert [request.started.is_set() for request in requests] == [True, True, True]
        for request in requests:
            await request.finish()

    run(scenario())


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.01, 10)), max_size=40))
def test_shares_add_up_to_the_busy_time(moves: list[tuple[int, float]]) -> None:
    """Requests may start, wait and finish in any order."""

    async def scenario() -> None:
        clock = Clock()
        queue = FairQueue(capacity(3), clock)
        requests: dict[int, Request] = {}
        contexts: list[RequestContext] = []
        busy = 0.0
        for number, seconds in moves:
            if number in requests:
                await requests.pop(number).finish() if requests[number].started.is_set() else None
            else:
                requests[number] = Request(queue, str(number))
                contexts.append(requests[number].context)
            await run_pending_tasks()
            busy += seconds if queue.capacity.running else 0
            clock.now += seconds
        while requests:
            for number in [number for number, request in requests.items() if request.started.is_set()]:
                await requests.pop(number).finish()
            await run_pending_tasks()
        assert queue.busy_seconds == pytest.approx(busy)
        assert sum(context.busy_seconds for context in contexts) == pytest.approx(busy)

    run(scenario())
