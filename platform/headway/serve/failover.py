"""An engine that dies has a successor, and what was asked of the one is answered by the other.

vLLM's OpenAI application holds one engine for good: it holds this one, which hands on whatever it is asked to the
engine that lives. A request that has said nothing yet is asked again. One that has is continued where it stood, its
tokens so far being part of the prompt; where that would change what comes (stop strings, penalties, a grammar) but the
answer is determined (greedy, or with a seed), it is computed anew and what was said already is passed over, provided it
is the same. Anything else ends with an error: nothing that was cut off looks complete.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from headway.serve.fair_queue import FairQueue
from headway.serve.request_context import CURRENT, RequestContext
from headway.serve.resumable_generation import ResumableGeneration
from headway.serve.telemetry_sinks import TelemetrySinks

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

WATCH_SECONDS = 0.1
"""How often an idle engine is looked at [s]."""
DEATHS, WINDOW_SECONDS = 3, 120.0
"""So many deaths within so long [s], and there is no further successor: something else is wrong."""


class Failover:
    """The engine of a replica, whichever lives."""

    def __init__(
        self, engine: "AsyncLLM", start: Callable[[], Awaitable["AsyncLLM"]], gate: FairQueue, told: TelemetrySinks
    ) -> None:
        """`start` starts the next engine; it is ready when it has generated a token."""
        self._engine, self._start, self.gate = engine, start, gate
        self._log, self._metrics = told.log, told.metrics
        self._succession: asyncio.Task[None] | None = None
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self.lost: BaseException | None = None
        """Why there is no engine, and will be none."""
        self._watching = asyncio.create_task(self._watch())

    def __getattr__(self, name: str) -> Any:
        """Whatever else an engine is asked for."""
        return getattr(self._engine, name)

    @property
    def well(self) -> bool:
        """Whether an engine lives, at this moment."""
        return not (self.lost or self._engine.errored or self._changing)

    @property
    def errored(self) -> bool:
        """Whether requests are of no use any more: vLLM's application asks before it begins one."""
        return self.lost is not None

    @property
    def dead_error(self) -> BaseException:
        """What to raise then."""
        return self._engine.dead_error

    async def check_health(self) -> None:
        """See that an engine lives.

        Raises:
            EngineDeadError: none does, or not yet again.
        """
        if not self.well:
            raise self.dead_error

    def generate(
        self, prompt: Any, sampling_params: "SamplingParams", request_id: str, **rest: Any
    ) -> AsyncGenerator["RequestOutput", None]:
        """Answer a request, as AsyncLLM.generate does; the call that it is for may end it."""
        call = CURRENT.get() or RequestContext(request_id)
        answer = self._generate(call, prompt, sampling_params, request_id, **rest)
        call.answers.append(answer)
        return answer

    async def _generate(
        self, call: RequestContext, prompt: Any, sampling_params: "SamplingParams", request_id: str, **rest: Any
    ) -> AsyncGenerator["RequestOutput", None]:
        """An answer, piece by piece.

        Raises:
            EngineDeadError: the engine died, and the answer cannot be gone on with.
            VLLMValidationError: the request is one that no engine could answer.
        """
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        from headway.serve import error_handlers

        call.asked = True
        transcript, resumed = ResumableGeneration(prompt, sampling_params), False
        async with self.gate.place(call):
            while not call.over:
                engine = await self._living()
                asked = engine.generate(transcript.prompt, transcript.params, request_id, **rest)
                try:
                    async with aclosing(asked) as outputs:
                        async for output in outputs:
                            if sampling_params.structured_outputs and error_handlers.ungrammatical(output):
                                raise VLLMValidationError(
                                    "The grammar or schema cannot be compiled, or not be followed."
                                )
                            if call.over:
                                return
                            if (new := transcript.take(output)) is not None:
                                _book(call, new)
                                yield new
                except EngineGenerateError as error:
                    if error_handlers.of_the_request(error):
                        raise VLLMValidationError(f"The request cannot be computed: {error.__cause__}") from error
                    raise
                except EngineDeadError:
                    if resumed or not transcript.go_on():  # what killed two engines may be the request itself
                        call.problem = "engine_died"
                        raise
                    resumed = True
                    call.resumed += 1
                    self._metrics.resumed()
                    self._log.warning("request.resumed", request=call.name, tokens=transcript.said)
                else:
                    return

    async def _living(self) -> "AsyncLLM":
        """An engine that lives, once there is one.

        Raises:
            EngineDeadError: there will be none.
        """
        while self.lost is None and (self._engine.errored or self._changing):
            await asyncio.shield(self._successor())
        if self.lost is not None:
            raise self.dead_error
        return self._engine

    async def _watch(self) -> None:
        """An engine that dies while nobody asks has a successor, too."""
        while self.lost is None:
            await asyncio.sleep(WATCH_SECONDS)
            if self._engine.errored:
                await self._successor()

    @property
    def _changing(self) -> bool:
        return self._succession is not None and not self._succession.done()

    def _successor(self) -> asyncio.Task[None]:
        """The task that starts the next engine: one for all who wait for it."""
        if self._succession is None or self._succession.done():
            self._succession = asyncio.create_task(self._succeed())
        return self._succession

    async def _succeed(self) -> None:
        """Start the next engine."""
        began = time.monotonic()
        self._deaths.append(began)
        if len(self._deaths) == DEATHS and began - self._deaths[0] < WINDOW_SECONDS:
            self.lost = RuntimeError(f"{DEATHS} engines died within {began - self._deaths[0]:.0f} s")
            return
        try:
            self._metrics.died()
            self._log.warning("engine.died", action="another is started; its requests wait")
            dead = self._engine
            dead.renderer = None  # type: ignore[assignment]  # the application goes on using it: shutdown would close it
            dead.shutdown()
            self._engine = await self._start()
            self._log.warning("engine.replaced", seconds=round(time.monotonic() - began, 3))
        except Exception as error:  # whatever it is, requests wait for this task and must hear that it is over
            self.lost = error


def _book(call: RequestContext, output: "RequestOutput") -> None:
    """Note on the call what an output is worth."""
    now = time.perf_counter()
    tokens = sum(len(each.token_ids) for each in output.outputs)
    if call.first is None and tokens:
        spent = output.metrics.last_token_ts - output.metrics.first_token_ts if output.metrics else 0.0
        call.first = now - spent  # of a whole answer, which comes at once, the engine knows when it began
        call.prompt_tokens += len(output.prompt_token_ids or ())
    call.generated_tokens += tokens
    call.last = now
