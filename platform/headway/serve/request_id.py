"""The name of a request: the client's own, else that of its trace; told to the engine and back to the client."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.request_context import CURRENT, KEY, RequestContext, route_of
from headway.serve.response_hooks import ResponseHooks
from headway.telemetry import Spans, Trace

HEADER = "X-Request-ID"
TRACE = "traceparent"
"""W3C: the trace that a request belongs to."""
GOOD = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What is taken from a client: nothing that would break a log line or a header."""


class RequestId:
    """The first link: every request has an id, by which it is called, and every response says it, errors included."""

    def __init__(self, app: ASGIApp, spans: Spans, origin: Trace | None = None) -> None:
        """`origin` is the trace of the run that made the model: each request's span leads to it."""
        self.app, self.spans = app, spans
        self._links = [origin] if origin else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope)
        route = route_of(scope)
        span = self.spans.begin(f"{scope['method']} {route}", parent=Trace.parse(sent.get(TRACE)), links=self._links)
        given = sent.get(HEADER, "")
        name = given if GOOD.fullmatch(given) else span.trace.trace_id
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers[HEADER] = name

        async def say(message: Message) -> None:
            MutableHeaders(scope=message)[HEADER] = name

        call = RequestContext(name, route, span=span, answer=ResponseHooks(send))
        call.answer.at_head.append(say)
        CURRENT.set(call)
        try:
            await self.app({**scope, "headers": headers.raw, KEY: call}, receive, call.answer)
        finally:
            await call.end()
