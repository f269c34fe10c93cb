"""The gate to the engine: so many are computed at a time, the rest wait, each tenant in a line of its own.

The lines are served in turn, so that a tenant who sends a lot waits behind itself. What the engine does is shared
equally among those inside: their shares add up to the time in which it was busy.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from headway.serve.request_context import RequestContext

FULL = 0.95
"""Share of the engine's KV cache above which nobody new is let in: it would have to take it from those inside."""


class FairQueue:
    """Counts who is inside, and lets in who is next."""

    def __init__(self, places: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """`places` are computed at a time."""
        self.places, self._clock = places, clock
        self.inside = 0
        self.busy_seconds = 0.0
        """How long somebody was inside, in all [s]."""
        self.cache_usage = 0.0
        """Share of the KV cache that is taken, as the engine said last."""
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        self._share, self._since = 0.0, clock()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(line) for line in self._lines.values())

    @asynccontextmanager
    async def place(self, call: RequestContext) -> AsyncIterator[None]:
        """A place inside for the length of the block; what the wait and the work cost is booked on `call`."""
        asked = self._clock()
        if not self._room():
            await self._turn(call.tenant)
        else:
            self._enter()
        call.queued_seconds += self._clock() - asked
        before = self._share
        try:
            yield
        finally:
            self._pass()
            call.busy_seconds += self._share - before
            self.inside -= 1
            self._let_in()

    def told(self, cache_usage: float) -> None:
        """The engine says how full its cache is, after each step."""
        self.cache_usage = cache_usage
        if self._lines:
            self._let_in()

    def _room(self) -> bool:
        return self.inside == 0 or (self.inside < self.places and self.cache_usage < FULL)

    async def _turn(self, tenant: str) -> None:
        """Wait in the tenant's line."""
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in and gone at the same moment
                self._pass()
                self.inside -= 1
            else:
                self._leave(tenant, turn)
            self._let_in()
            raise

    def _leave(self, tenant: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(tenant, deque())
        with suppress(ValueError):  # passed over already
            line.remove(turn)
        if not line:
            self._lines.pop(tenant, None)

    def _let_in(self) -> None:
        """Let in who is next while there is room: the first of the line whose turn it is, which is then the last."""
        while self._lines and self._room():
            tenant = next(iter(self._lines))
            line = self._lines.pop(tenant)
            turn = line.popleft()
            if line:
                self._lines[tenant] = line
            if not turn.cancelled():
                self._enter()
                turn.set_result(None)

    def _enter(self) -> None:
        self._pass()
        self.inside += 1

    def _pass(self) -> None:
        """Book the time since the last change on those inside, each the same."""
        now = self._clock()
        if self.inside:
            self.busy_seconds += now - self._since
            self._share += (now - self._since) / self.inside
        self._since = now
