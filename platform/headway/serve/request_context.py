"""Context of a request: what middleware and engine know and record about it.

`RequestId` creates it. Middleware finds it in the ASGI scope; the engine, which sees no scope, in a context variable.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from headway.serve.request_body import RequestBody
from headway.serve.response_hooks import ResponseHooks
from headway.serve.routes import OTHER
from headway.telemetry import Span, Trace

SCOPE_KEY = "headway.request"
"""Key of the context in the ASGI scope."""
DEADLINE_EXCEEDED = "deadline_exceeded"
"""Problem of a request whose deadline passed before its response was complete."""
ANONYMOUS = "anonymous"
"""Tenant of every request to a service without API keys."""


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
    """Tokens of its prompts."""
    generated_tokens: int = 0
    """Tokens that the engine generated for it."""
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

    async def close(self) -> None:
        """Release what the request holds in the engine and in its queue, and call the hooks of its end.

        vLLM merges the streams of several prompts; those not read to their end would hold their slots until they are
        garbage-collected.
        """
        self.closed = True
        try:
            for generation in self.generations:
                with suppress(RuntimeError):  # it is running, and checks `closed` itself
                    await generation.aclose()
        finally:  # even if this task is cancelled meanwhile
            await self.response.close()
            for hook in reversed(self.on_close):
                await hook()

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
