"""A closed context releases the slots of its streams, whether they were read or not."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

from tests.unit.serve.replicas import capacity

from headway.serve.engine.failover import Failover
from headway.serve.engine.fair_queue import FairQueue
from headway.serve.request_context import CURRENT_REQUEST, RequestContext


class Engine:
    """An engine that generates a token each time it is resumed, and counts its open streams."""

    errored = False
    model_config = SimpleNamespace(get_vocab_size=lambda: 1024)

    def __init__(self) -> None:
        self.open = 0

    async def generate(self, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        """Generate two outputs."""
        self.open += 1
        try:
            for finished in (False, True):
                piece = SimpleNamespace(token_ids=[1], text="a", finish_reason=None, logprobs=None)
                yield SimpleNamespace(outputs=[piece], finished=finished, prompt_token_ids=[0], metrics=None)
                await asyncio.sleep(0)
        finally:
            self.open -= 1


def test_a_closed_context_holds_no_slot() -> None:
    """Two of ten streams run and are read no more; the others end when their turn comes."""
    from vllm import SamplingParams

    async def run() -> None:
        engine, queue = Engine(), FairQueue(capacity(2))
        sinks = cast("Any", SimpleNamespace(log=None, metrics=None))
        failover = Failover(cast("Any", engine), cast("Any", None), queue, sinks, AsyncMock())
        context = RequestContext("x")
        CURRENT_REQUEST.set(context)
        generations = [failover.generate({"prompt_token_ids": [0]}, SamplingParams(), str(n)) for n in range(10)]
        tasks = [asyncio.ensure_future(anext(generation)) for generation in generations]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
        assert (queue.capacity.running, queue.capacity.waiting, engine.open) == (2, 8, 2)
        await context.close()
        for each in tasks:
            with suppress(StopAsyncIteration):
                await each
        assert (queue.capacity.running, queue.capacity.waiting, engine.open) == (0, 0, 0)
        failover._monitor_task.cancel()  # noqa: SLF001 - it would run for ever

    asyncio.run(asyncio.wait_for(run(), 60))
