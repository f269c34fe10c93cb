"""Hooks on the response of a request: middleware registers functions that see its first and last message.

One wrapper around `send` serves all middleware: every piece of a stream passes it, and a wrapper for each would cost.
"""

import time
from collections.abc import Awaitable, Callable

from starlette.types import Message, Send

MessageHook = Callable[[Message], Awaitable[None]]
"""Gets a message before the client does, and may change it."""


async def discard(_: Message) -> None:
    """Drop a message: the `send` of a response that no client reads."""


class ResponseHooks:
    """Forwards a response to the client, calls the hooks, and tracks how far the response got."""

    def __init__(self, send: Send = discard) -> None:
        self._send = send
        self.on_start: list[MessageHook] = []
        """Called with the message that holds status and headers."""
        self.on_end: list[MessageHook] = []
        """Called with the last piece of the body."""
        self.status = 0
        """HTTP status; 0 before the response starts."""
        self.complete = False
        """Whether the last piece was sent."""
        self.sending_since: float | None = None
        """When the piece that waits for the client was sent [s, `time.monotonic`]; None: no piece waits."""

    async def __call__(self, message: Message) -> None:
        """Forward a message."""
        last = False
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for hook in self.on_start:
                await hook(message)
        elif last := not message.get("more_body", False):
            for hook in self.on_end:
                await hook(message)
        self.sending_since = time.monotonic()
        await self._send(message)
        self.sending_since = None
        self.complete = last
