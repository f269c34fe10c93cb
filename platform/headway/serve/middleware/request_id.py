"""Request ids: the client's own or the trace id; the engine and the response carry it."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.request_context import CURRENT_REQUEST, SCOPE_KEY, RequestContext
from headway.serve.response_hooks import ResponseHooks
from headway.serve.routes import path_label
from headway.telemetry import Spans, Trace

REQUEST_ID_HEADER = "X-Request-ID"
TRACEPARENT_HEADER = "traceparent"
"""W3C header: the trace that a request belongs to."""
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Ids accepted from clients: none can break a log line or a header."""


class RequestId(HttpMiddleware):
    """Outermost middleware: gives each request a context, a span and an id; each response carries the id."""

    def __init__(self, app: ASGIApp, spans: Spans, run_trace: Trace | None = None) -> None:
        """`run_trace`: trace of the run that trained the model; each request's span links to it."""
        super().__init__(app)
        self.spans = spans
        self._span_links = [run_trace] if run_trace else []

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its context."""
        headers = Headers(scope=scope)
        label = path_label(scope)
        parent = Trace.parse(headers.get(TRACEPARENT_HEADER))
        span = self.spans.start_span(f"{scope['method']} {label}", parent=parent, links=self._span_links)
        client_id = headers.get(REQUEST_ID_HEADER, "")
        request_id = client_id if VALID_ID.fullmatch(client_id) else span.trace.trace_id
        inner_headers = MutableHeaders(raw=list(scope["headers"]))
        inner_headers[REQUEST_ID_HEADER] = request_id

        async def add_header(message: Message) -> None:
            MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id

        context = RequestContext(request_id, label, span=span, response=ResponseHooks(send))
        context.response.on_start.append(add_header)
        CURRENT_REQUEST.set(context)
        try:
            await self.app({**scope, "headers": inner_headers.raw, SCOPE_KEY: context}, receive, context.response)
        finally:
            await context.close()
