"""Token counts: what the engine computes for each request, counted where the engine itself counts it.

vLLM counts the tokens of every step, and shows only what a response holds: nothing of one that was broken off and is no
stream. These counts grow in the same place (`engine_patches.report_tokens`), so what tenants are charged adds up to
what the engine counts, however their requests end. As in vLLM, a prompt counts once it is computed: whole, whether or
not its tokens were cached, and once for each of its choices (`n`).

What another engine computes again because one died is charged to nobody: it counts as overhead.
"""

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from headway.serve.patches import engine_patches
from headway.serve.request_context import CURRENT_REQUEST, RequestContext, TokenCount

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

    from headway.telemetry.serving_metrics import ServingMetrics


class GenerationTokens:
    """The tokens of one generation, on one engine or on several in turn; adds them to its request's context.

    In its block, whatever engines compute under its id counts here.
    """

    def __init__(self, context: RequestContext, engine_request: str) -> None:
        """`engine_request`: the id that the engine is given."""
        self.context, self._id = context, engine_request
        self.prompt = self.generated = 0
        """Tokens that are charged so far."""
        self._prompt_credit = self._generated_credit = 0
        """Tokens that the present engine computes again, so that they are charged already."""

    async def __aenter__(self) -> Self:
        self.context.counts[self._id] = self
        return self

    async def __aexit__(self, *_: object) -> None:
        self.context.counts.pop(self._id, None)

    def add(self, prompt: int, generated: int) -> None:
        """Charge the tokens of a step, except those that are computed again."""
        context = self.context
        if self._prompt_credit or self._generated_credit:
            prompt, generated = self._without_replay(prompt, generated)
        self.prompt += prompt
        self.generated += generated
        context.prompt_tokens += prompt
        context.generated_tokens += generated
        if generated:
            context.last_token = time.perf_counter()
            if context.first_token is None:
                context.first_token = context.last_token

    def replay(self, *, kept: int, in_prompt: int, repeated: int) -> None:
        """Prepare for another engine, because the present one has died.

        `kept`: tokens that the client has received, of those generated. The next engine gets `in_prompt` of them as a
        part of the prompt, or generates `repeated` of them again.
        """
        lost = self.generated - kept
        self.generated -= lost
        self.context.generated_tokens -= lost
        self.context.replayed_tokens += lost
        self._prompt_credit = self.prompt + in_prompt if self.prompt else 0
        self._generated_credit = repeated

    def _without_replay(self, prompt: int, generated: int) -> tuple[int, int]:
        """Take tokens that are charged already from those of a step."""
        replayed_prompt, replayed = min(prompt, self._prompt_credit), min(generated, self._generated_credit)
        self._prompt_credit -= replayed_prompt
        self._generated_credit -= replayed
        self.context.replayed_prompt_tokens += replayed_prompt
        self.context.replayed_tokens += replayed
        return prompt - replayed_prompt, generated - replayed


class StartTokens:
    """The tokens of requests that no client has sent: an engine generates one when it starts."""

    def __init__(self, metrics: "ServingMetrics") -> None:
        self._metrics = metrics

    def add(self, prompt: int, generated: int) -> None:
        """Count the tokens of a step as overhead."""
        self._metrics.record_start(prompt_tokens=prompt, generated_tokens=generated)


class EngineTokens:
    """Counts the tokens of one engine, each for the request that it is computed for."""

    def __init__(self, engine: "AsyncLLM", metrics: "ServingMetrics") -> None:
        self._engine, self._start = engine, StartTokens(metrics)
        engine_patches.report_tokens(engine, self._open)

    def _open(self, engine_request: str) -> TokenCount:
        """Open the count of a request of the engine; the task that passes it to the engine calls this."""
        context = CURRENT_REQUEST.get()
        if context is None:
            return self._start
        context.abort = self.abort
        return context.counts.get(engine_request) or GenerationTokens(context, engine_request)

    async def abort(self, context: RequestContext) -> None:
        """Abort whatever the engine still computes for a request; returns when none of it can count any more."""
        from vllm.v1.engine.exceptions import EngineDeadError

        running = engine_patches.counted_requests(self._engine)
        ids = [each for each, count in running if isinstance(count, GenerationTokens) and count.context is context]
        if ids:
            with suppress(EngineDeadError):  # then it computes nothing
                await self._engine.abort(ids, internal=True)
