"""Hooks on the response of a request: the one idiom for whatever happens on the way back to the client.

Middleware registers functions that see the first message and the end. Every piece of a stream passes the one wrapper
around `send`, and a wrapper for each middleware would cost.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from headway.serve.openai_error import ApiError, error_of_status

StartHook = Callable[[Message], Awaitable[None]]
"""Gets the message that holds status and headers before the client does, and may change it."""
EndHook = Callable[[], Awaitable[None]]
"""Gets nothing: it is called when a response ends."""
Report = Callable[[Exception], None]
"""Gets an error that no client caused."""
CLIENT_ERROR, SERVER_ERROR = 400, 500
"""Lowest statuses that say that the request was wrong, and that the service failed."""


async def discard(_: Message) -> None:
    """Drop a message: the `send` of a response that no client reads."""


def ignore(_: Exception) -> None:
    """Report an error to nobody: there is no request."""


async def call_each(hooks: Iterable[EndHook], report: Report) -> None:
    """Call hooks. One that fails, or at which the task is cancelled, keeps none of the others from being called."""
    cancellation: BaseException | None = None
    for hook in hooks:
        try:
            await hook()
        except Exception as error:  # any: the others have to be called
            report(error)
        except BaseException as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation


class ResponseHooks:
    """Forwards a response to the client, calls the hooks, and tracks how far the response got."""

    def __init__(self, send: Send = discard, report: Report = ignore) -> None:
        """`report` gets the errors of the hooks of the end, which change nothing for the client."""
        self._send, self._report = send, report
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
        await call_each(reversed(hooks), self._report)

    async def _forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            for hook in reversed(self.on_start):
                await hook(message)
                if self._drops and not self.has_failed:  # the hook holds the response back
                    return
            self.status = message["status"]
            self._headers = message["headers"]
            if self.status >= CLIENT_ERROR and not self.has_failed and not _has_json(self._headers):
                await self._send_in_shape(message)
                return
        elif not message.get("more_body", False):
            self.is_ending = True
            await self.close()
        self.sending_since = time.monotonic()
        await self._send(message)
        self.sending_since = None
        self.complete = self.is_ending

    async def _send_in_shape(self, message: Message) -> None:
        """Send an error whose body is no JSON in OpenAI's shape, with its own headers; drop its body.

        Such are the errors of Starlette, of Ray Serve, of Prometheus's client, and of whatever stands in front of an
        upstream.
        """
        self.has_failed = self._drops = True
        content = bytes(error_of_status(self.status).response().body)
        headers = MutableHeaders(raw=list(self._headers))
        headers["content-type"], headers["content-length"] = "application/json", str(len(content))
        await self._send({**message, "headers": headers.raw})
        await self._forward({"type": "http.response.body", "body": content})


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


def _has_json(raw_headers: list[tuple[bytes, bytes]]) -> bool:
    return Headers(raw=raw_headers).get("content-type", "").startswith("application/json")
