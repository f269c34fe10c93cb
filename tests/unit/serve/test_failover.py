"""Failover between engine doubles: no test can hit the moment between a real engine's death and its report."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from tests.unit.serve.replicas import capacity
from vllm import SamplingParams
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.v1.engine.exceptions import EngineDeadError

from headway.serve.engine.failover import Failover
from headway.serve.engine.fair_queue import FairQueue

pytestmark = pytest.mark.xdist_group("vllm")


class Engine:
    """An engine whose streams wait until somebody reports its death to them, as vLLM's do."""

    dead_error = EngineDeadError()

    def __init__(self) -> None:
        self.errored = self.is_shut_down = False
        self.renderer = None
        self.started = asyncio.Event()
        self._report: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.output_processor = SimpleNamespace(propagate_error=self._propagate_error)

    def _propagate_error(self, error: Exception) -> None:
        if not self.is_shut_down:
            self._report.set_exception(error)

    def shutdown(self) -> None:
        """Cancel whatever would report the death."""
        self.is_shut_down = True

    async def generate(self, *_: Any, **__: Any) -> AsyncGenerator[RequestOutput, None]:
        """Generate nothing until the engine is reported dead."""
        self.started.set()
        await self._report
        yield output()


class Successor(Engine):
    """The next engine, which finishes each request at once."""

    async def generate(self, *_: Any, **__: Any) -> AsyncGenerator[RequestOutput, None]:
        """Generate the only output."""
        yield output()


def output() -> RequestOutput:
    """The output of a finished request: one token."""
    choice = CompletionOutput(
        index=0, text="a", token_ids=[1], cumulative_logprob=None, logprobs=None, finish_reason="stop"
    )
    return RequestOutput(
        request_id="x", prompt="p", prompt_token_ids=[0], prompt_logprobs=None, outputs=[choice], finished=True
    )


@pytest.mark.timeout(60)
def test_a_stream_that_waits_when_its_engine_dies_continues_on_the_next() -> None:
    """Its death is reported to the stream before the shutdown, which would keep it from ever being reported."""

    async def scenario() -> None:
        first, second = Engine(), Successor()
        start_engine = Mock(side_effect=lambda: asyncio.sleep(0, second))
        failover = Failover(cast("Any", first), start_engine, FairQueue(capacity(1)), Mock(), AsyncMock())
        outputs: list[RequestOutput] = []

        async def read() -> None:
            outputs.extend([each async for each in failover.generate({"prompt": "p"}, SamplingParams(), "x")])

        reader = asyncio.create_task(read())
        await first.started.wait()
        first.errored = True
        await reader
        assert [each.outputs[0].text for each in outputs] == ["a"]
        assert start_engine.call_count == 1

    asyncio.run(scenario())
