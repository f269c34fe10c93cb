"""One request on its way through the links to the engine and back: what all of them know of it.

The first link makes it, the links hand it on in the request's scope, and the engine, which sees no scope, finds it in
the context of the task that asks.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Scope

from headway.serve.response_hooks import ResponseHooks
from headway.telemetry import Span, Trace

KEY = "headway.call"
"""Where a request's scope has it."""
ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/embeddings", "/v1/responses", "/tokenize")
"""Paths that metrics and spans name; anybody may ask for any other."""
LATE = "deadline_exceeded"
"""The problem of a call whose client would not wait longer."""
NOBODY = "anonymous"
"""The tenant of whoever asks an endpoint without API keys."""


@dataclass
class RequestContext:
    """One request. The engine counts what it costs; a request with several prompts is one call."""

    name: str
    """Its `X-Request-ID`."""
    route: str = "other"
    """Its path, if it is one of `ROUTES`."""
    tenant: str = NOBODY
    span: Span = field(default_factory=lambda: Span(Trace.new()))
    """What its trace shows of it."""
    answer: ResponseHooks = field(default_factory=ResponseHooks)
    """What it is answered."""
    begun: float = field(default_factory=time.perf_counter)
    """When all of it was here [s, `time.perf_counter`]."""
    asked: bool = False
    """Whether the engine was asked: until then it was only read."""
    first: float | None = None
    """When its first token was there [s, `time.perf_counter`]."""
    last: float | None = None
    """When its newest token was there [s, `time.perf_counter`]."""
    queued_seconds: float = 0.0
    """How long it waited for its place in the engine [s]."""
    busy_seconds: float = 0.0
    """Its share of the time in which the engine was busy [s]."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    resumed: int = 0
    """How often it went on with another engine, because its own had died."""
    served_by: str | None = None
    """The model of the other service that answered it, if one did."""
    over: bool = False
    """Whether nobody waits for it any more."""
    answers: list[AsyncGenerator[Any, None]] = field(default_factory=list)
    """What the engine was asked for it: one for each prompt."""
    problem: str | None = None
    """Why it got no answer, or only the beginning of one, though it should have."""

    async def end(self) -> None:
        """Let go of what it holds in the engine, and at its gate.

        Of several answers, which vLLM merges, those not read to their end would hold it until they are garbage.
        """
        self.over = True
        for answer in self.answers:
            with suppress(RuntimeError):  # it runs, and looks whether the call is over
                await answer.aclose()

    @property
    def first_seconds(self) -> float | None:
        """From its arrival to its first token [s]; None if it has none."""
        return None if self.first is None else self.first - self.begun

    @property
    def token_seconds(self) -> float | None:
        """Mean time between its tokens [s]; None if it has not got two."""
        if self.first is None or self.last is None or self.generated_tokens < 2:
            return None
        return (self.last - self.first) / (self.generated_tokens - 1)


CURRENT: ContextVar[RequestContext | None] = ContextVar("headway.call", default=None)
"""The call that a task works for."""


def context_of(scope: Scope) -> RequestContext:
    """The call that a request is."""
    call: RequestContext = scope[KEY]
    return call


def route_of(scope: Scope) -> str:
    """The path of a request, if it is one of `ROUTES`."""
    path: str = scope["path"]
    return path if path in ROUTES else "other"
