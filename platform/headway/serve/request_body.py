"""Body of a request: its bytes, and the JSON object in them, which is parsed once for all middleware."""

from typing import Any

from pydantic_core import from_json
from starlette.types import Message, Receive


class RequestBody:
    """A body that was read to its end."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        """Its bytes, which the engine gets unchanged."""
        self._parsed: tuple[dict[str, Any] | None, str | None] | None = None
        """The object and the problem, once somebody has asked for either."""

    @property
    def fields(self) -> dict[str, Any] | None:
        """The JSON object in it; None if it holds none."""
        return self._parse()[0]

    @property
    def problem(self) -> str | None:
        """Why it holds no JSON object; None if it does."""
        return self._parse()[1]

    def replay(self, receive: Receive) -> Receive:
        """Make a `receive` that returns the body first, and then what `receive` does: that the client has left.

        The application parses the body itself and may take minutes to respond, so the parsed object is dropped here:
        it can take many times the memory of the bytes, and no budget counts it.
        """
        self._parsed = None
        pending: list[Message] = [{"type": "http.request", "body": self.content, "more_body": False}]

        async def receive_again() -> Message:
            return pending.pop() if pending else await receive()

        return receive_again

    def _parse(self) -> tuple[dict[str, Any] | None, str | None]:
        if self._parsed is None:
            self._parsed = _parse_object(self.content)
        return self._parsed


def _parse_object(content: bytes) -> tuple[dict[str, Any] | None, str | None]:
    try:
        document = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        return None, f"The body is not valid JSON: {error}"
    return (document, None) if isinstance(document, dict) else (None, "The body is not a JSON object.")
