"""One request on its way through the links to the engine and back: what all of them know of it.

The first link makes it, the links hand it on in the request's scope, and the engine, which sees no scope, finds it in
the context of the task that asks.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import Scope

KEY = "headway.call"
"""Where a request's scope has it."""
NOBODY = "anonymous"
"""The tenant of whoever asks an endpoint without API keys."""


@dataclass
class Call:
    """One request. The engine counts what it costs; a request with several prompts is one call."""

    name: str
    """Its `X-Request-ID`."""
    tenant: str = NOBODY
    begun: float = field(default_factory=time.perf_counter)
    """When it arrived [s, `time.perf_counter`]."""
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


CURRENT: ContextVar[Call | None] = ContextVar("headway.call", default=None)
"""The call that a task works for."""


def call_of(scope: Scope) -> Call:
    """The call that a request is."""
    call: Call = scope[KEY]
    return call
