"""HTTP protocol: uvicorn's for httptools, with bounds on heads: their size, their duration, and how many are open.

Everything of a message that is not its body counts as its head: the lines before the body, the sizes and extensions
of chunks, and trailers. A client that sends a piece of a head and falls silent takes no place of the engine, but
memory and a file.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from headway.serve.openai_error import INVALID_REQUEST, ApiError

FRAMING_FACTOR = 16
"""Bytes around each byte of a body that count as part of the body: a client may send it in chunks of a byte."""
MAX_PIPELINED = 32
"""Requests of one connection that wait for the response to an earlier one."""

LINGER_SECONDS = 1.0
"""How long a refused connection stays open: if it were closed while its client sends, the refusal could be lost [s]."""


@dataclass
class HeadLimits:
    """Limits of all connections of a server, and what of them is in use."""

    max_bytes: int
    """Longest head [bytes]."""
    max_fields: int
    """Most header fields of a request."""
    seconds: float
    """How long a head may take to arrive [s]."""
    max_open: int
    """Most heads that are open at a time; beyond it, the oldest one is given up."""
    max_connections: int
    """Most connections of one address; 0: no limit."""
    open_heads: dict["BoundedProtocol", None] = field(default_factory=dict)
    """Connections with an open head, the oldest first."""
    connections: Counter[str] = field(default_factory=Counter)
    """Open connections by address."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection of an HTTP client."""

    def __init__(self, *args: Any, limits: HeadLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = limits
        self._address = ""
        self._is_open = False
        self._in_head = self._in_body = False
        """Whether a part of a head, or of a request after its head, has come, and not all of it."""
        self._bytes = self._body_bytes = self._fields = 0
        """What has come of the present message, the part of it that is its body, and its header fields."""
        self._has_begun = False
        """Whether a message began in the bytes that are being parsed."""
        self._timer: asyncio.TimerHandle | None = None
        """Ends the connection if the rest of a head, or of a body that nobody wants, does not come."""
        self._refusal: ApiError | None = None
        """Why nothing more of this connection is read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and close it later if nothing comes."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self.limits.connections[self._address] += 1
        self._is_open = True
        if 0 < self.limits.max_connections < self.limits.connections[self._address]:
            self._refuse(_too_many_connections(self.limits.max_connections))
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._forget()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to another protocol."""
        self._forget()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and refuse the connection if it exceeds a limit."""
        if self._refusal:
            return
        self._has_begun = False
        super().data_received(data)
        if self._refusal or not self._is_open:
            return
        if not self._has_begun:
            self._bytes += len(data)
        if self._bytes > self.limits.max_bytes + (1 + FRAMING_FACTOR) * self._body_bytes:
            self._refuse(_too_large(self.limits.max_bytes))
        elif self._timer is None and (self._in_head or (self._is_idle and not self._in_body)):
            self._head_began()

    def on_message_begin(self) -> None:
        """Count a new message; what came with the end of an earlier one is not a part of it."""
        super().on_message_begin()
        self._in_head = self._has_begun = True
        self._bytes = self._body_bytes = self._fields = 0

    def on_url(self, url: bytes) -> None:
        """Count a piece of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header field or a trailer."""
        self._fields += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, or let it wait for the one before it."""
        self._head_ended()
        self._in_head, self._in_body = False, True
        if len(self.pipeline) == MAX_PIPELINED:
            self._stop(_too_many_requests())
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count a piece of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next head."""
        self._head_ended()
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; what is left of a body that nobody wants may take as long as a head."""
        super().on_response_complete()
        if self._in_body and self._timer is None:
            self._timer = self.loop.call_later(self.limits.seconds, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or what a callback of the parser has stopped."""
        self._refuse(self._refusal or ApiError(400, msg, kind=INVALID_REQUEST, code="invalid_http"))

    def _count(self, size: int) -> None:
        """Count a part of the head that came in one piece with the start of its message."""
        if self._has_begun:
            self._bytes += size
        if self._fields > self.limits.max_fields or (self._in_head and self._bytes > self.limits.max_bytes):
            self._stop(_too_large(self.limits.max_bytes))

    def _stop(self, refusal: ApiError) -> None:
        """Stop the parser.

        Raises:
            ApiError: the parser turns it into its own error, and `send_400_response` is called.
        """
        self._refusal = refusal
        raise refusal

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being responded to."""
        return self.cycle is None or self.cycle.response_complete

    def _head_began(self) -> None:
        self._timer = self.loop.call_later(self.limits.seconds, self.give_up)
        self.limits.open_heads[self] = None
        if len(self.limits.open_heads) > self.limits.max_open:
            next(iter(self.limits.open_heads)).give_up()

    def _head_ended(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self.limits.open_heads.pop(self, None)

    def _forget(self) -> None:
        """End all that was begun for this connection, once."""
        self._unset_keepalive_if_required()
        self._head_ended()
        if self._is_open:
            self._is_open = False
            self.limits.connections[self._address] -= 1
            if not self.limits.connections[self._address]:
                del self.limits.connections[self._address]

    def give_up(self) -> None:
        """Refuse a head that does not come to its end."""
        self._refuse(_too_slow(self.limits.seconds))

    def _refuse(self, refusal: ApiError) -> None:
        """Read no more, and say why, unless a response is being sent: then the connection ends with that."""
        self._refusal = refusal
        self._head_ended()
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        if not self._is_idle:
            self.cycle.keep_alive = False
            if self.pipeline or self.cycle.response_started or not self._in_body:
                return
            self.cycle.disconnected = True  # its body will not come
            self.cycle.message_event.set()
        response = refusal.response()
        fields = [*response.raw_headers, (b"connection", b"close")]
        lines = [STATUS_LINE[refusal.status], *(b"%b: %b\r\n" % each for each in fields), b"\r\n", bytes(response.body)]
        self.transport.write(b"".join(lines))
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _too_large(limit: int) -> ApiError:
    message = f"The head of the request is larger than {limit} bytes, or has too many fields. Send less."
    return ApiError(431, message, kind=INVALID_REQUEST, code="request_header_fields_too_large")


def _too_slow(seconds: float) -> ApiError:
    message = f"The head of the request was not complete after {seconds:g} s, or too many others were incomplete."
    return ApiError(408, message, kind="timeout_error", code="request_timeout")


def _too_many_requests() -> ApiError:
    message = f"More than {MAX_PIPELINED} requests wait for a response on this connection. Open another one."
    return ApiError(400, message, kind=INVALID_REQUEST, code="too_many_pipelined_requests")


def _too_many_connections(limit: int) -> ApiError:
    message = f"This address has {limit} open connections already. Close one, and try again."
    headers = {"Retry-After": "1"}
    return ApiError(429, message, kind="overloaded_error", code="too_many_connections", headers=headers)
