"""Events of a service and its requests.

Each line also has `model`, `version`, `role`, `device` and `quantization`, except that of an unreadable key file.
"""

from headway.events.event import LogEvent, event


@event("request.ended")
class RequestEnded(LogEvent):
    """A request has ended, in whatever way."""

    request: str
    """ID of the request (`X-Request-ID`)."""
    trace: str
    """ID of its trace."""
    tenant: str
    """Name of the tenant that sent it."""
    path: str
    """Path label of its metrics."""
    code: int
    """HTTP status; 499 if the client left before the response."""
    outcome: str
    """`ok`, `refused`, `failed`, `late` or `gone`."""
    problem: str | None
    """Why the response is missing or incomplete; null if it is neither, or the client is the reason."""
    seconds: float
    """From the last byte of the request to that of the response [s]."""
    first_token: float | None
    """From the last byte of the request to its first token [s]; null if it has none."""
    queued: float
    """Wait for a slot of the engine [s]."""
    prompt_tokens: int
    """Tokens of its prompts."""
    answer_tokens: int
    """Tokens that the engine generated for it."""
    resumed: int
    """How often another engine continued it because its engine died."""
    served_by: str | None
    """Model of the fallback service that responded; null if this service did."""


@event("request.failed", level="warning")
class RequestFailed(LogEvent):
    """The service itself failed at a request: an error that neither the client nor the engine caused."""

    request: str
    """ID of the request."""
    problem: str
    """The exception."""
    place: str
    """File, line and function that raised it; empty if unknown."""


@event("request.unread", level="warning")
class RequestUnread(LogEvent):
    """A client does not read its response, so its connection was closed."""

    request: str
    """ID of the request."""
    seconds: float
    """How long it read nothing [s]."""


@event("request.unreadable", level="warning")
class RequestUnreadable(LogEvent):
    """A request made the tokenizer or the validation of its body fail in an unexpected way; it is refused."""

    request: str
    """ID of the request."""
    problem: str
    """The exception."""


@event("request.resumed", level="warning")
class RequestResumed(LogEvent):
    """The engine of a request died, and another one continues it."""

    request: str
    """ID of the request."""
    tokens: int
    """Tokens that were generated before."""


@event("engine.died", level="warning")
class EngineDied(LogEvent):
    """The engine of the replica died."""

    action: str
    """What the replica does."""


@event("engine.replaced", level="warning")
class EngineReplaced(LogEvent):
    """Another engine is ready in place of the one that died."""

    seconds: float
    """From the death to the readiness [s]."""


@event("keys.unreadable", level="warning")
class KeysUnreadable(LogEvent):
    """The file with the API keys has changed, and cannot be read."""

    problem: str
    """What is wrong with it."""
    action: str
    """The keys that hold meanwhile."""


ServingEvent = (
    RequestEnded
    | RequestFailed
    | RequestUnread
    | RequestUnreadable
    | RequestResumed
    | EngineDied
    | EngineReplaced
    | KeysUnreadable
)
