"""Suspects: the requests that may have killed an engine.

An engine that fails by itself fails while it begins a request that it cannot compute; requests that have a token have
been computed before. So the requests without a token are suspects. One suspect alone is the culprit, and is not computed
again. Several are computed again one by one, so the next death shows which of them it was.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headway.serve import patches

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

POLL_SECONDS = 0.05
"""Interval between looks at whether a suspect has a token [s]."""


@dataclass(eq=False)
class Computation:
    """A request on its way through one engine or several."""

    request_id: str
    """ID that the engine knows it by."""
    engine: "AsyncLLM | None" = None
    """The engine that computes it."""
    is_suspect: bool = False
    """Whether an engine died while it had no token."""
    is_culprit: bool = False
    """Whether an engine died by it."""


class Suspects:
    """The requests that are computed, and what the deaths of engines say about them."""

    def __init__(self) -> None:
        self._computations: set[Computation] = set()
        self._judged: AsyncLLM | None = None
        """The engine that died last."""
        self._was_suspicious = False
        """Whether its death has suspects."""
        self._turn = asyncio.Lock()
        """Held by the one suspect that has no token yet."""

    @contextmanager
    def track(self, request_id: str) -> Iterator[Computation]:
        """Track a request during the block."""
        computation = Computation(request_id)
        self._computations.add(computation)
        try:
            yield computation
        finally:
            self._computations.remove(computation)

    @asynccontextmanager
    async def turn(self, computation: Computation, engine: "AsyncLLM") -> AsyncIterator[None]:
        """Compute a request during the block; a suspect waits until no other suspect is without a token."""
        if computation.is_suspect:
            await self._turn.acquire()
            computation.engine = engine
            watcher = asyncio.create_task(self._release(computation, engine))
            try:
                yield
            finally:
                computation.engine = None
                await watcher
        else:
            computation.engine = engine
            yield

    def judge(self, engine: "AsyncLLM") -> bool:
        """Find the suspects of the death of an engine; returns whether there are any."""
        if engine is not self._judged:
            self._judged = engine
            waiting = set() if patches.was_killed(engine) else patches.requests_without_token(engine)
            suspects = [each for each in self._computations if each.engine is engine and each.request_id in waiting]
            suspects = [each for each in suspects if each.is_suspect] or suspects
            for each in suspects:
                each.is_suspect = True
                each.is_culprit = len(suspects) == 1
            self._was_suspicious = bool(suspects)
        return self._was_suspicious

    async def _release(self, computation: Computation, engine: "AsyncLLM") -> None:
        """End a suspect's turn once it has a token, or is not computed any more."""
        started = False
        while computation.engine is engine and not engine.errored:
            has_token = computation.request_id not in patches.requests_without_token(engine)
            if started and has_token:
                computation.is_suspect = False
                break
            started = started or not has_token
            await asyncio.sleep(POLL_SECONDS)
        self._turn.release()
