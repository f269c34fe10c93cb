"""Hooks on the response of a request: the one idiom for whatever happens on the way back to the client.

Middleware registers functions that see the first message and the end. Every piece of a stream passes the one wrapper
around `send`, and a wrapper for each middleware would cost.
"""

import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from starlette.datastructures import Headers
from starlette.types import Message, Send

from headway.serve.openai_error import ApiError

StartHook = Callable[[Message], Awaitable[None]]
"""Gets the message that holds status and headers before the client does, and may change it."""
EndHook = Callable[[], Awaitable[None]]
"""Gets nothing: it is called when a response ends."""
SERVER_ERROR = 500
"""Lowest status that says that the service failed."""


async def discard(_: Message) -> None:
    """Drop a message: the `send` of a response that no client reads."""


class ResponseHooks:
    """Forwards a response to the client, calls the hooks, and tracks how far the response got."""

    def __init__(self, send: Send = discard) -> None:
        self._send = send
        self.on_start: list[StartHook] = []
        """Called before the response starts, the innermost middleware's first, as the response passes them."""
        self.on_end: list[EndHook] = []
        """Called once: before the client gets the last piece, or when the request ends without one."""
        self.status = 0
        """HTTP status; 0 before the response starts."""
        self.is_ending = False
        """Whether the last piece is on its way or was sent."""
        self.complete = False
        """Whether the last piece was sent."""
        self.sending_since: float | None = None
        """When the piece that waits for the client was sent [s, `time.monotonic`]; None: no piece waits."""
        self._headers: list[tuple[bytes, bytes]] = []
        self.has_failed = False
        """Whether an error has ended it, in the place of what the application sends."""
        self._drops = False

    def __call__(self, message: Message) -> Awaitable[None]:
        """Forward a message of the application; this is its `send`."""
        return discard(message) if self._drops else self._forward(message)

    def hold_back(self) -> None:
        """Drop what the application sends from now on."""
        self._drops = True

    def release(self) -> None:
        """Forward again what the application sends, unless `fail` has responded in its place."""
        self._drops = self.has_failed

    async def fail(self, error: ApiError) -> None:
        """End the response with an error, however far it got, and drop what the application still sends.

        A stream gets the error as its last event. Any other response that has started is left incomplete: whoever
        gets it sees that it broke off.
        """
        self.has_failed = self._drops = True
        if not self.status:
            response = error.response()
            headers = response.raw_headers
            await self._forward({"type": "http.response.start", "status": response.status_code, "headers": headers})
            await self._forward({"type": "http.response.body", "body": response.body})
        elif not self.is_ending and Headers(raw=self._headers).get("content-type", "").startswith("text/event-stream"):
            await self._forward({"type": "http.response.body", "body": error.event()})

    async def close(self) -> None:
        """Call the hooks of the end, unless they were called: the request is over."""
        hooks, self.on_end = self.on_end, []
        for hook in reversed(hooks):
            await hook()

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            for hook in reversed(self.on_start):
                await hook(message)
                if self._drops and not self.has_failed:  # the hook holds the response back
                    return
            self.status = message["status"]
            self._headers = message["headers"]
        elif not message.get("more_body", False):
            self.is_ending = True
            await self.close()
        self.sending_since = time.monotonic()
        await self._send(message)
        self.sending_since = None
        self.complete = self.is_ending


class TentativeResponse:
    """A block in which a response that starts with a server error is held back, so that another can take its place."""

    def __init__(self, response: ResponseHooks) -> None:
        self.response = response
        self.failure: Exception | None = None
        """What failed, if anything did."""

    def __enter__(self) -> Self:
        self.response.on_start.append(self._hold_failure_back)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.response.on_start.remove(self._hold_failure_back)
        self.response.release()

    async def _hold_failure_back(self, message: Message) -> None:
        if message["status"] >= SERVER_ERROR and not self.response.has_failed:
            self.failure = RuntimeError(f"status {message['status']}")
            self.response.hold_back()
