"""A call that is over: what was asked for it lets go of its places, read or not; with an engine that only counts."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

from headway.serve.failover import Failover
from headway.serve.fair_queue import FairQueue
from headway.serve.request_context import CURRENT, RequestContext


class Engine:
    """Tells a token whenever it is asked to go on; notes how many answers are open."""

    errored = False

    def __init__(self) -> None:
        self.open = 0

    async def generate(self, *_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        """Two pieces."""
        self.open += 1
        try:
            for finished in (False, True):
                piece = SimpleNamespace(token_ids=[1], text="a", finish_reason=None, logprobs=None)
                yield SimpleNamespace(outputs=[piece], finished=finished, prompt_token_ids=[0], metrics=None)
                await asyncio.sleep(0)
        finally:
            self.open -= 1


def test_a_call_that_is_over_holds_no_place() -> None:
    """Of ten answers two are inside, of which nobody reads any more; the others leave as their turn comes."""
    from vllm import SamplingParams

    async def run() -> None:
        engine, gate = Engine(), FairQueue(2)
        told = cast("Any", SimpleNamespace(log=None, metrics=None))
        failover = Failover(cast("Any", engine), cast("Any", None), gate, told)
        call = RequestContext("x")
        CURRENT.set(call)
        answers = [failover.generate({"prompt_token_ids": [0]}, SamplingParams(), str(n)) for n in range(10)]
        reading = [asyncio.ensure_future(anext(answer)) for answer in answers]
        await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
        assert (gate.inside, gate.waiting, engine.open) == (2, 8, 2)
        await call.end()
        for each in reading:
            with suppress(StopAsyncIteration):
                await each
        assert (gate.inside, gate.waiting, engine.open) == (0, 0, 0)
        failover._watching.cancel()  # noqa: SLF001 - it would watch for ever

    asyncio.run(asyncio.wait_for(run(), 60))
