"""Failover between engine doubles: no test can hit the moment between a real engine's death and its report."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from tests.unit.serve.replicas import capacity
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError

from headway.serve.engine.failover import Failover
from headway.serve.engine.fair_queue import FairQueue

pytestmark = pytest.mark.xdist_group("vllm")


class Engine:
    """An engine whose streams wait until somebody reports its death to them, as vLLM's do."""

    dead_error = EngineDeadError()
    model_config = SimpleNamespace(get_vocab_size=lambda: 8)

    def __init__(self, exit_code: int | None = 1) -> None:
        """`exit_code`: of its process, when it is dead."""
        processes = [SimpleNamespace(exitcode=exit_code)]
        self.engine_core = SimpleNamespace(
            resources=SimpleNamespace(engine_manager=SimpleNamespace(processes=processes))
        )
        self.errored = self.is_shut_down = False
        self.renderer = None
        self.started = asyncio.Event()
        self._report: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.output_processor = SimpleNamespace(propagate_error=self._propagate_error, request_states={})

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


class Vulnerable(Engine):
    """An engine that computes requests of two tokens, the second when it is told to, unless one kills it before."""

    def __init__(self, exit_code: int | None = 1) -> None:
        super().__init__(exit_code)
        self.goes_on = asyncio.Event()
        self.prompts: list[Any] = []
        """What it was asked to compute."""

    async def generate(self, prompt: Any, _: Any, request_id: str, **__: Any) -> AsyncGenerator[RequestOutput, None]:
        """Generate a token, and the last one later; a prompt that is deadly kills it before."""
        if self.errored:
            raise EngineDeadError
        self.prompts.append(prompt["prompt_token_ids"])
        state = SimpleNamespace(external_req_id=request_id, is_prefilling=True)
        self.output_processor.request_states[len(self.prompts)] = state
        await asyncio.sleep(0.01)  # requests that come at once are begun at once
        if DEADLY in prompt["prompt_token_ids"]:
            self.errored = True
            self._report.set_exception(EngineDeadError())
        if self.errored:
            await self._report
        state.is_prefilling = False
        yield output(finished=False)
        waiting: asyncio.Future[Any] = asyncio.ensure_future(self.goes_on.wait())
        await asyncio.wait({waiting, self._report}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._report.done():
            await self._report
        yield output()

    def _propagate_error(self, error: Exception) -> None:
        if not self._report.done():
            super()._propagate_error(error)


DEADLY = 7
"""A token that kills an engine."""
STREAM = SamplingParams(output_kind=RequestOutputKind.DELTA, max_tokens=100)


def output(*, finished: bool = True) -> RequestOutput:
    """An output of one token; the request is finished, or not."""
    choice = CompletionOutput(
        index=0,
        text="a",
        token_ids=[1],
        cumulative_logprob=None,
        logprobs=None,
        finish_reason="stop" if finished else None,
    )
    return RequestOutput(
        request_id="x", prompt="p", prompt_token_ids=[0], prompt_logprobs=None, outputs=[choice], finished=finished
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


class Service:
    """A failover whose engines are doubles; each starts at once."""

    def __init__(self, exit_code: int | None = 1) -> None:
        self.engines = [Vulnerable(exit_code)]
        self.failover = Failover(
            cast("Any", self.engines[0]), cast("Any", self._start), FairQueue(capacity(8)), Mock(), AsyncMock()
        )

    async def _start(self) -> Vulnerable:
        self.engines.append(Vulnerable())
        return self.engines[-1]

    def ask(self, *token_ids: int, name: str = "x") -> asyncio.Task[int]:
        """Ask for a stream; the result is the number of its tokens."""

        async def read() -> int:
            prompt = {"prompt_token_ids": list(token_ids)}
            return len([each async for each in self.failover.generate(prompt, STREAM, name)])

        return asyncio.create_task(read())

    def end(self) -> None:
        """Let all engines finish what they compute."""
        for engine in self.engines:
            engine.goes_on.set()


@pytest.mark.timeout(60)
def test_a_request_that_killed_an_engine_is_not_computed_again() -> None:
    """However often such a request comes: the streams of others continue each time, and the service goes on."""

    async def scenario() -> None:
        service = Service()
        victim = service.ask(1, name="victim")
        await asyncio.sleep(0.05)
        for deaths in range(1, 6):
            with pytest.raises(VLLMValidationError, match="not computed again"):
                await service.ask(DEADLY, name=f"killer {deaths}")
            await asyncio.sleep(0.05)
            assert len(service.engines) == deaths + 1
            assert service.failover.healthy
        assert [each.prompts.count([DEADLY]) for each in service.engines] == [1, 1, 1, 1, 1, 0]
        service.end()
        assert await victim == 2 + 5

    asyncio.run(scenario())


@pytest.mark.timeout(60)
def test_of_several_suspects_the_innocent_are_computed() -> None:
    """One by one, so that the next death shows which of them it was."""

    async def scenario() -> None:
        service = Service()
        killer = service.ask(DEADLY, name="killer")  # begun first, so the others have no token yet
        innocent = [service.ask(number, name=f"innocent {number}") for number in (1, 2, 3)]
        with pytest.raises(VLLMValidationError, match="not computed again"):
            await killer
        await asyncio.sleep(1)
        service.end()
        assert len(service.engines) == 3
        assert min(await asyncio.gather(*innocent)) >= 2
        assert sum(each.prompts.count([DEADLY]) for each in service.engines) == 2
        assert service.failover.healthy

    asyncio.run(scenario())


@pytest.mark.timeout(60)
def test_a_request_whose_engine_somebody_killed_is_computed_again() -> None:
    """It is no suspect then; the next engine that it kills says that it is."""

    async def scenario() -> None:
        service = Service(exit_code=-9)
        with pytest.raises(VLLMValidationError, match="not computed again"):
            await service.ask(DEADLY)
        assert [each.prompts for each in service.engines[:2]] == [[[DEADLY]], [[DEADLY]]]

    asyncio.run(scenario())


@pytest.mark.parametrize("token_id", [8, 9, 2**31, -1])
def test_a_token_that_the_model_lacks_is_refused_before_the_engine(token_id: int) -> None:
    """The embedding has no row for it, whatever the tokenizer says."""

    async def scenario() -> None:
        service = Service()
        with pytest.raises(VLLMValidationError, match="vocabulary, whose ids are 0 to 7"):
            service.failover.generate({"prompt_token_ids": [0, token_id, 1]}, STREAM, "x")
        service.end()
        assert await service.ask(0, 6, 1) == 2

    asyncio.run(scenario())
