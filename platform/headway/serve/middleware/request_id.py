"""Request ids: the client's own or the trace id; the engine and the response carry it.

Whatever fails inside, the client gets an error in OpenAI's shape, with the id under which the log says what failed.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.request_context import CURRENT_REQUEST, SCOPE_KEY, RequestContext
from headway.serve.response_hooks import ResponseHooks
from headway.serve.routes import path_label
from headway.telemetry import Log, Span, Spans, Trace

REQUEST_ID_HEADER = "X-Request-ID"
TRACEPARENT_HEADER = "traceparent"
"""W3C header: the trace that a request belongs to."""
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Ids accepted from clients: none can break a log line or a header."""


class RequestId(HttpMiddleware):
    """Outermost middleware: gives each request a context, a span and an id; each response carries the id."""

    def __init__(self, app: ASGIApp, spans: Spans, run_trace: Trace | None = None, log: Log | None = None) -> None:
        """`run_trace`: trace of the run that trained the model; each request's span links to it. `log`: of errors."""
        super().__init__(app)
        self.spans, self.log = spans, log
        self._span_links = [run_trace] if run_trace else []

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its context; respond with an error to whatever fails."""
        context = self._context(scope, send)
        CURRENT_REQUEST.set(context)
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers[REQUEST_ID_HEADER] = context.request_id
        try:
            await self.app({**scope, "headers": headers.raw, SCOPE_KEY: context}, receive, context.response)
        except Exception as error:  # any: no client gets the server's own response
            await context.fail(error)
            raise  # the server closes the connection
        finally:
            await context.close()

    def _context(self, scope: Scope, send: Send) -> RequestContext:
        """Create the context of a request."""
        headers, label = Headers(scope=scope), path_label(scope)
        context = RequestContext("", label, log=self.log)
        context.span = self._start_span(context, scope, headers)
        client_id = headers.get(REQUEST_ID_HEADER, "")
        context.request_id = client_id if VALID_ID.fullmatch(client_id) else context.span.trace.trace_id

        async def add_header(message: Message) -> None:
            MutableHeaders(scope=message)[REQUEST_ID_HEADER] = context.request_id

        context.response = ResponseHooks(send, context.report)
        context.response.on_start.append(add_header)
        return context

    def _start_span(self, context: RequestContext, scope: Scope, headers: Headers) -> Span:
        """Start the span of a request. One that cannot be started is none, and the request goes on."""
        try:
            parent = Trace.parse(headers.get(TRACEPARENT_HEADER))
            name = f"{scope['method']} {context.path_label}"
            return self.spans.start_span(name, parent=parent, links=self._span_links)
        except Exception as error:  # any: telemetry is no reason to refuse a request
            context.request_id = context.span.trace.trace_id
            context.report(error)
            return context.span
