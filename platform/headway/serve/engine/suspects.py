"""Suspects: the requests that may have killed an engine.

An engine that fails by itself fails while it begins a request that it cannot compute; requests that have a token have
been computed before. So the requests without a token are suspects. One suspect alone is the culprit, and is not
computed again. Several are computed again one by one, so the next death shows which of them it was.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headway.serve.patches import engine_patches

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
    was_resumed: bool = False
    """Whether an engine died whose death has no suspects."""
    has_turn: bool = False
    """Whether it is the one suspect that may be without a token."""


class Suspects:
    """The requests that are computed, and what the deaths of engines say about them."""

    def __init__(self) -> None:
        self._computations: set[Computation] = set()
        self._judged: Callable[[], AsyncLLM | None] = lambda: None
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
    async def turn(self, computation: Computation) -> AsyncIterator[None]:
        """Compute a request during the block; a suspect waits until no other suspect is without a token."""
        watcher = None
        computation.engine = None
        if computation.is_suspect:
            await self._turn.acquire()
            computation.has_turn = True
            watcher = asyncio.create_task(self._watch(computation))
        try:
            yield
        finally:
            if watcher is not None:
                watcher.cancel()
                self._end_turn(computation)

    def judge(self, engine: "AsyncLLM | None") -> bool:
        """Find the suspects of the death of an engine; returns whether there are any."""
        if engine is not None and engine is not self._judged():
            self._judged = weakref.ref(engine)
            begun = {} if engine_patches.was_killed(engine) else engine_patches.begun_requests(engine)
            here = [each for each in self._computations if each.engine is engine]
            suspects = [each for each in here if begun.get(each.request_id) is False]
            suspects = [each for each in suspects if each.is_suspect] or suspects
            for each in suspects:
                each.is_suspect = True
                each.is_culprit = len(suspects) == 1
            self._was_suspicious = bool(suspects)
        return self._was_suspicious

    async def _watch(self, computation: Computation) -> None:
        """End the turn of a suspect once it has a token."""
        has_token = False
        while not has_token:
            await asyncio.sleep(POLL_SECONDS)
            engine = computation.engine
            if engine is not None and not engine.errored:
                has_token = engine_patches.begun_requests(engine).get(computation.request_id, False)
        computation.is_suspect = False
        self._end_turn(computation)

    def _end_turn(self, computation: Computation) -> None:
        if computation.has_turn:
            computation.has_turn = False
            self._turn.release()
