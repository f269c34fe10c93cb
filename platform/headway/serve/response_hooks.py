"""The way back of a request: an answer passes here on its way to the client, and whoever wants to know of it is told.

One step for all links together: each piece of a stream takes it, so that a step for each link would be felt.
"""

import time
from collections.abc import Awaitable, Callable

from starlette.types import Message, Send

Told = Callable[[Message], Awaitable[None]]
"""Is told of a message before the client is, and may change it."""


async def nowhere(_: Message) -> None:
    """The way back of a call that nobody made."""


class ResponseHooks:
    """Passes an answer on, and remembers how far it got."""

    def __init__(self, send: Send = nowhere) -> None:
        self._send = send
        self.at_head: list[Told] = []
        """Told of its head."""
        self.at_end: list[Told] = []
        """Told of its last piece."""
        self.status = 0
        """0: it did not begin."""
        self.whole = False
        self.waits_since: float | None = None
        """Since when a piece of it waits for its reader [s, `time.monotonic`]; None: none does."""

    async def __call__(self, message: Message) -> None:
        """Pass on a part of it."""
        last = False
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for told in self.at_head:
                await told(message)
        elif last := not message.get("more_body", False):
            for told in self.at_end:
                await told(message)
        self.waits_since = time.monotonic()
        await self._send(message)
        self.waits_since = None
        self.whole = last
