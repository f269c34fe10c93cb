"""Fair queue in front of the engine: it limits the requests computed at a time; each tenant waits in its own queue.

The tenants' queues take turns, so a tenant with many requests delays only itself. Busy time of the engine is divided
equally among the requests that run; their shares add up to the time in which it was busy.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from headway.serve.capacity import Capacity
from headway.serve.request_context import RequestContext

FULL_CACHE = 0.95
"""Usage of the engine's KV cache above which no request is admitted: it would take memory from those that run."""


class FairQueue:
    """Counts the running requests, and admits the next one when a slot is free."""

    def __init__(self, capacity: Capacity, clock: Callable[[], float] = time.perf_counter) -> None:
        """`capacity`: has the slots, and the counts of requests that run and wait."""
        self.capacity, self._clock = capacity, clock
        self.busy_seconds = 0.0
        """Time in which at least one request was running [s]."""
        self.cache_usage = 0.0
        """Share of the KV cache in use, 0 to 1, as the engine last reported it."""
        self._queues: dict[str, deque[asyncio.Future[float]]] = {}
        """Waiting requests by tenant; the tenant whose turn is next comes first."""
        self._share_seconds = 0.0
        """Busy time charged to a request that has been running all along [s]."""
        self._charged_until = clock()

    @asynccontextmanager
    async def slot(self, context: RequestContext) -> AsyncIterator[None]:
        """Hold a slot during the block; adds the waiting time and the share of busy time to `context`."""
        arrival = self._clock()
        if self._has_slot():
            self._start_one()
            before = self._share_seconds
        else:
            before = await self._wait(context)
        context.queue_seconds += self._clock() - arrival
        context.hold_slot()
        try:
            yield
        finally:
            self._charge_time()
            context.busy_seconds += self._share_seconds - before
            context.release_slot()
            self.capacity.running -= 1
            self._admit()

    def update_cache_usage(self, usage: float) -> None:
        """Store the usage of the KV cache, which the engine reports after each step."""
        self.cache_usage = usage
        if self._queues:
            self._admit()

    def _has_slot(self) -> bool:
        return self.capacity.running == 0 or (
            self.capacity.running < self.capacity.slots and self.cache_usage < FULL_CACHE
        )

    async def _wait(self, context: RequestContext) -> float:
        """Wait in the tenant's queue until a slot is held; returns the share of busy time at that moment."""
        tenant = context.tenant
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append(turn)
        self.capacity.waiting += 1
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted and cancelled at the same moment
                self._charge_time()
                context.busy_seconds += self._share_seconds - turn.result()
                self.capacity.running -= 1
            else:
                self._remove(tenant, turn)
            self._admit()
            raise

    def _remove(self, tenant: str, turn: asyncio.Future[float]) -> None:
        queue = self._queues.get(tenant, deque())
        with suppress(ValueError):  # `_admit` has skipped it already
            queue.remove(turn)
            self.capacity.waiting -= 1
        if not queue:
            self._queues.pop(tenant, None)

    def _admit(self) -> None:
        """Admit waiting requests while there are slots: the first of a tenant, whose next turn is then the last."""
        while self._queues and self._has_slot():
            tenant = next(iter(self._queues))
            queue = self._queues.pop(tenant)
            turn = queue.popleft()
            self.capacity.waiting -= 1
            if queue:
                self._queues[tenant] = queue
            if not turn.cancelled():
                self._start_one()
                turn.set_result(self._share_seconds)

    def _start_one(self) -> None:
        self._charge_time()
        self.capacity.running += 1

    def _charge_time(self) -> None:
        """Divide the time since the last change equally among the running requests."""
        now = self._clock()
        if self.capacity.running:
            self.busy_seconds += now - self._charged_until
            self._share_seconds += (now - self._charged_until) / self.capacity.running
        self._charged_until = now
