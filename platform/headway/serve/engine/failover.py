"""Failover: when an engine dies, another replaces it and continues its requests.

vLLM's OpenAI application keeps one engine object for good. It gets a `Failover`, which forwards every call to the live
engine. A request without output starts again. One with output continues: its tokens so far are appended to the prompt.
Where that could change the output (stop strings, penalties, a grammar) but the output is determined (greedy, or with a
seed), the new engine computes it again, and the part that was sent already is skipped if it is the same. Any other
request ends with an error, so no truncated response looks complete.

A request that killed an engine (`suspects.py`) is refused, and its engine's death says nothing about the next.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from headway.events.serving_events import EngineDied, EngineReplaced, RequestResumed
from headway.serve.engine.error_handlers import has_failed, is_request_error
from headway.serve.engine.fair_queue import FairQueue
from headway.serve.engine.grammar_process import NOT_COMPILED
from headway.serve.engine.resumable_generation import ResumableGeneration
from headway.serve.engine.suspects import Computation, Suspects
from headway.serve.engine.token_counts import GenerationTokens
from headway.serve.engine.token_ids import require_token_ids
from headway.serve.patches import engine_patches
from headway.serve.request_context import CURRENT_REQUEST, RequestContext
from headway.serve.telemetry_sinks import TelemetrySinks

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.exceptions import EngineDeadError

POLL_SECONDS = 0.1
"""Interval between checks of an idle engine [s]."""
MAX_DEATHS, WINDOW_SECONDS = 3, 120.0
"""After so many deaths without suspects within so long [s] no engine is started any more."""
KILLED = "The engine failed when it began this request, which is not computed again. Change it."
GrammarCheck = Callable[["SamplingParams", RequestContext], Awaitable[None]]
"""Refuses a request whose grammar is too expensive."""


class Failover:
    """The live engine of a replica, and its replacement when it dies."""

    def __init__(
        self,
        engine: "AsyncLLM",
        start_engine: Callable[[], Awaitable["AsyncLLM"]],
        queue: FairQueue,
        sinks: TelemetrySinks,
        check_grammar: GrammarCheck,
    ) -> None:
        """`start_engine`: starts another engine, and returns when it has generated a token."""
        self._engine, self._start_engine, self.queue = engine, start_engine, queue
        self._log, self._metrics = sinks.log, sinks.metrics
        self._check_grammar, self._suspects = check_grammar, Suspects()
        self._replacement: asyncio.Task[None] | None = None
        """The task that starts another engine, or the last such task."""
        self._death_times: deque[float] = deque(maxlen=MAX_DEATHS)
        self.failure: BaseException | None = None
        """Why there will be no engine any more; None: there is one, or another is starting."""
        self._monitor_task = asyncio.create_task(self._monitor())

    def __getattr__(self, name: str) -> Any:
        """Forward any other attribute to the live engine."""
        return getattr(self._engine, name)

    @property
    def healthy(self) -> bool:
        """Whether an engine is live now."""
        return not (self.failure or self._engine.errored or self._replacing)

    @property
    def errored(self) -> bool:
        """Whether no request can succeed any more; vLLM's application checks it before each request."""
        return self.failure is not None

    @property
    def dead_error(self) -> BaseException:
        """The error to raise when `errored`."""
        return self._engine.dead_error

    async def check_health(self) -> None:
        """Check that an engine is live.

        Raises:
            EngineDeadError: the engine is dead, or its replacement is still starting.
        """
        if not self.healthy:
            raise self.dead_error

    def generate(
        self, prompt: Any, sampling_params: "SamplingParams", request_id: str, **kwargs: Any
    ) -> AsyncGenerator["RequestOutput", None]:
        """Generate outputs, as `AsyncLLM.generate` does; closing the request's context ends them.

        Raises:
            VLLMValidationError: the prompt has a token that the model does not have.
        """
        require_token_ids(prompt, self._engine.model_config.get_vocab_size())
        context = CURRENT_REQUEST.get() or RequestContext(request_id)
        generation = self._generate(context, prompt, sampling_params, request_id, **kwargs)
        context.generations.append(generation)
        return generation

    async def _generate(
        self, context: RequestContext, prompt: Any, sampling_params: "SamplingParams", request_id: str, **kwargs: Any
    ) -> AsyncGenerator["RequestOutput", None]:
        """Generate outputs, from several engines if need be.

        Raises:
            EngineDeadError: the engine died, and no other can continue the request.
            VLLMValidationError: no engine can process the request.
        """
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        context.reached_engine = True
        generation = ResumableGeneration(prompt, sampling_params)
        async with self.queue.slot(context), GenerationTokens(context, request_id) as tokens:
            await self._check_grammar(sampling_params, context)
            with self._suspects.track(request_id) as computation:
                while not context.closed:
                    async with self._suspects.turn(computation):
                        engine = computation.engine = await self._live_engine()
                        stream = engine.generate(generation.prompt, generation.params, request_id, **kwargs)
                        try:
                            async with aclosing(stream) as outputs:
                                async for output in outputs:
                                    if sampling_params.structured_outputs and has_failed(output):
                                        raise VLLMValidationError(NOT_COMPILED)
                                    if context.closed:
                                        return
                                    if (new_output := generation.advance(output)) is not None:
                                        yield new_output
                        except EngineGenerateError as error:
                            if is_request_error(error):
                                message = f"The request cannot be computed: {error.__cause__}"
                                raise VLLMValidationError(message) from error
                            raise
                        except EngineDeadError as error:
                            self._prepare_next_engine(context, computation, generation, error)
                            generation.account_for_replay(tokens)
                        else:
                            return

    def _prepare_next_engine(
        self,
        context: RequestContext,
        computation: Computation,
        generation: ResumableGeneration,
        error: "EngineDeadError",
    ) -> None:
        """Prepare a request whose engine died for the next one.

        Raises:
            EngineDeadError: no other engine can continue it.
            VLLMValidationError: it has killed the engine.
        """
        from vllm.exceptions import VLLMValidationError

        has_suspects = self._suspects.judge(computation.engine)
        if computation.is_culprit:
            context.problem = "engine_killed"
            raise VLLMValidationError(KILLED) from error
        # A request that has seen two engines die may be the cause, unless others are suspects.
        if computation.was_resumed or not generation.prepare_resume():
            context.problem = "engine_died"
            raise error
        computation.was_resumed = not has_suspects
        context.resumptions += 1
        self._metrics.record_resumption()
        self._log.write(RequestResumed(request=context.request_id, tokens=generation.token_count))

    async def _live_engine(self) -> "AsyncLLM":
        """Return the live engine; waits for it while it is replaced.

        Raises:
            EngineDeadError: there will be no engine any more.
        """
        while self.failure is None and (self._engine.errored or self._replacing):
            await asyncio.shield(self._ensure_replacement())
        if self.failure is not None:
            raise self.dead_error
        return self._engine

    async def _monitor(self) -> None:
        """Replace an engine that dies while no request runs."""
        while self.failure is None:
            await asyncio.sleep(POLL_SECONDS)
            if self._engine.errored:
                await self._ensure_replacement()

    @property
    def _replacing(self) -> bool:
        return self._replacement is not None and not self._replacement.done()

    def _ensure_replacement(self) -> asyncio.Task[None]:
        """Return the task that starts another engine; all who wait share one."""
        if self._replacement is None or self._replacement.done():
            self._replacement = asyncio.create_task(self._replace_engine())
        return self._replacement

    async def _replace_engine(self) -> None:
        """Shut the dead engine down and start another; sets `failure` if that fails."""
        start = time.monotonic()
        if not self._suspects.judge(self._engine):
            self._death_times.append(start)
            if len(self._death_times) == MAX_DEATHS and start - self._death_times[0] < WINDOW_SECONDS:
                self.failure = RuntimeError(f"{MAX_DEATHS} engines died within {start - self._death_times[0]:.0f} s")
                return
        try:
            self._metrics.record_engine_death()
            self._log.write(EngineDied(action="another engine is starting; requests wait for it"))
            engine_patches.keep_renderer(self._engine)
            engine_patches.report_death(self._engine)
            self._engine.shutdown()
            self._engine = await self._start_engine()
            self._log.write(EngineReplaced(seconds=round(time.monotonic() - start, 3)))
        except Exception as error:  # any error: requests wait for this task and need to see that it failed
            self.failure = error
