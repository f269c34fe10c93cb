"""Context of a request: what middleware and engine know and record about it.

`RequestId` creates it. Middleware finds it in the ASGI scope; the engine, which sees no scope, in a context variable.
"""

import asyncio
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from starlette.types import Scope

from headway.events.serving_events import RequestFailed
from headway.serve.openai_error import INTERNAL_ERROR, internal_error
from headway.serve.request_body import RequestBody
from headway.serve.response_hooks import ResponseHooks, call_each
from headway.serve.routes import OTHER
from headway.telemetry import Log, Span, Trace

SCOPE_KEY = "headway.request"
"""Key of the context in the ASGI scope."""
DEADLINE_EXCEEDED = "deadline_exceeded"
"""Problem of a request whose deadline passed before its response was complete."""
CANCELLED = "cancelled"
"""Problem of a request whose task was cancelled."""
ANONYMOUS = "anonymous"
"""Tenant of every request to a service without API keys."""
STOP_SECONDS = 5.0
"""How long a request that is over waits for its slots of the engine [s]; they are free at once, unless it starts."""


class TokenCount(Protocol):
    """Counts the tokens that an engine computes for one of its requests."""

    def add(self, prompt: int, generated: int) -> None:
        """Add the tokens of a step; vLLM's own loop calls it, so it must not fail."""
        ...


@dataclass
class RequestContext:
    """One HTTP request and what it costs. A request with several prompts has one context."""

    request_id: str
    """Value of its `X-Request-ID` header."""
    path_label: str = OTHER
    """Path label of its metrics."""
    tenant: str = ANONYMOUS
    """Name of the tenant that sent it."""
    span: Span = field(default_factory=lambda: Span(Trace.new()))
    """Its span, from arrival to the end of the response."""
    response: ResponseHooks = field(default_factory=ResponseHooks)
    """Its response on the way to the client."""
    log: Log | None = None
    """Log of the errors that are the service's own; None: nobody reads them."""
    body: RequestBody | None = None
    """Its body, once it was read; None: it has none."""
    arrival: float = field(default_factory=time.perf_counter)
    """When its body was complete [s, `time.perf_counter`]."""
    reached_engine: bool = False
    """Whether the engine was called; before that, the request was only parsed and checked."""
    first_token: float | None = None
    """When its first token was generated [s, `time.perf_counter`]."""
    last_token: float | None = None
    """When its latest token was generated [s, `time.perf_counter`]."""
    queue_seconds: float = 0.0
    """How long it waited for a slot of the engine [s]."""
    busy_seconds: float = 0.0
    """Its share of the time in which the engine was busy [s]."""
    prompt_tokens: int = 0
    """Tokens of its prompts that the engine has computed."""
    generated_tokens: int = 0
    """Tokens that the engine has generated for it."""
    replayed_prompt_tokens: int = 0
    """Tokens of its prompts that were computed again because an engine died; nobody is charged for them."""
    replayed_tokens: int = 0
    """Tokens that were generated in vain, or again, because an engine died; nobody is charged for them."""
    counts: dict[str, "TokenCount"] = field(default_factory=dict)
    """Counts of the tokens of its generations, by the id that the engine knows each by."""
    abort: Callable[["RequestContext"], Awaitable[None]] | None = None
    """Aborts whatever the engine still computes for it; None: the engine has computed nothing."""
    slots: int = 0
    """Slots of the engine that it holds."""
    slots_released: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it gives its last slot back."""
    resumptions: int = 0
    """How often another engine continued it because its engine died."""
    served_by: str | None = None
    """Model of the fallback service that responded; None: this service did."""
    closed: bool = False
    """Whether no client waits for it any more."""
    generations: list[AsyncGenerator[Any, None]] = field(default_factory=list)
    """Output streams of the engine: one for each prompt."""
    on_close: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Called when the request is over, whether its response is complete or not."""
    problem: str | None = None
    """Why the response is missing or incomplete; None: it is neither, or the client is the reason."""
    is_broken: bool = False
    """Whether the service itself failed at it."""

    def report(self, error: Exception) -> None:
        """Log an error that no client caused, and where it was raised. Never raises itself."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
        with suppress(Exception):  # a log that fails is one more reason to respond
            if self.log:
                self.log.write(RequestFailed(request=self.request_id, problem=repr(error)[:500], place=place))

    async def fail(self, error: Exception) -> None:
        """Report an error that is the service's own, and end the response with it, unless another one has done so."""
        if self.is_broken:
            return
        self.is_broken = True
        self.report(error)
        if not self.response.complete:
            self.problem = self.problem or INTERNAL_ERROR
        try:
            await self.response.fail(internal_error(self.request_id))
        except Exception as hook_error:  # any: then the client gets the response without what the hooks add
            self.report(hook_error)
            del self.response.on_start[1:]  # the first adds the request id
            await self.response.fail(internal_error(self.request_id))

    async def stop(self) -> None:
        """End what the engine computes for the request; from then on its tokens and its share of time are final.

        vLLM merges the streams of several prompts; those not read to their end would hold their slots until they are
        garbage-collected. Those that another task waits for cannot be closed here, so the engine aborts them.
        """
        self.closed = True
        for generation in self.generations:
            try:
                await generation.aclose()
            except RuntimeError:  # it is running in another task
                continue
            except Exception as error:  # any: the others have to be closed
                self.report(error)
        if self.abort:
            await self.abort(self)
        if self.slots:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.slots_released.wait(), STOP_SECONDS)
            if self.abort:  # again: the other task may have passed one of several choices to the engine meanwhile
                await self.abort(self)
        self.abort = None

    async def close(self) -> None:
        """Stop the engine's work for the request, and call the hooks of its end, whatever fails."""
        try:
            await self.stop()
        finally:  # even if this task is cancelled meanwhile
            await call_each([self.response.close, *reversed(self.on_close)], self.report)

    def hold_slot(self) -> None:
        """Count a slot of the engine that the request holds from now on."""
        self.slots += 1
        self.slots_released.clear()

    def release_slot(self) -> None:
        """Count a slot that it gives back."""
        self.slots -= 1
        if not self.slots:
            self.slots_released.set()

    @property
    def first_token_seconds(self) -> float | None:
        """Time from its arrival to its first token [s]; None if it has no token."""
        return None if self.first_token is None else self.first_token - self.arrival

    @property
    def seconds_per_token(self) -> float | None:
        """Mean time between its tokens [s]; None if it has fewer than two."""
        if self.first_token is None or self.last_token is None or self.generated_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.generated_tokens - 1)


CURRENT_REQUEST: ContextVar[RequestContext | None] = ContextVar("headway.request", default=None)
"""Context of the request that this task works on."""


def context_of(scope: Scope) -> RequestContext:
    """Get the context of the request with this ASGI scope."""
    context: RequestContext = scope[SCOPE_KEY]
    return context


def body_of(scope: Scope) -> RequestBody:
    """Get the body of the request with this ASGI scope; only for middleware inside `Buffering`."""
    body = context_of(scope).body
    assert body is not None, "the body was not read yet"
    return body
