"""What is told of each request: metrics, a span and a line in the log, all under one id.

The id is the trace's, unless the client named the request itself; then lines, spans and exemplars say both.
"""

import time

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.request_context import LATE, RequestContext, context_of
from headway.serve.telemetry_sinks import TelemetrySinks

METRICS = "/metrics"
PROBES = (METRICS, "/health", "/ping", "/version", "/load")
"""What is asked every few seconds by machines, of which nothing is told."""
OPERATIONS = {"/v1/completions": "text_completion", "/v1/chat/completions": "chat", "/v1/embeddings": "embeddings"}
"""In OpenTelemetry's words (semantic conventions for generative AI)."""
GONE = 499
"""The status of who left before there was one, as nginx has it."""


class RequestTelemetry:
    """The link that sees each request from its arrival to its end."""

    def __init__(self, app: ASGIApp, observed: TelemetrySinks) -> None:
        self.app, self.observed = app, observed
        self._metrics = observed.metrics.application()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell how it went."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            shows = scope["type"] == "http" and (scope["path"], scope["method"]) == (METRICS, "GET")
            await (self._metrics if shows else self.app)(scope, receive, send)
            return
        call = context_of(scope)
        try:
            await self.app(scope, receive, send)
        except BaseException:
            call.answer.status = call.answer.status or 500
            raise
        finally:
            self._tell(scope, call)

    def _tell(self, scope: Scope, call: RequestContext) -> None:
        code = call.answer.status or GONE
        outcome = _outcome(call, code)
        seconds = time.perf_counter() - call.begun
        exemplar = {"trace_id": call.span.trace.trace_id}
        if call.name != call.span.trace.trace_id:
            exemplar["request_id"] = call.name
        metrics = self.observed.metrics
        metrics.ended(
            tenant=call.tenant, path=call.route, code=code, outcome=outcome, seconds=seconds, exemplar=exemplar
        )
        if call.prompt_tokens:
            metrics.answered(
                tenant=call.tenant,
                first=call.first_seconds,
                each=call.token_seconds,
                queued=call.queued_seconds,
                prompt_tokens=call.prompt_tokens,
                generated_tokens=call.generated_tokens,
                exemplar=exemplar,
            )
        if call.busy_seconds:
            cost = call.busy_seconds * self.observed.price
            metrics.charged(tenant=call.tenant, seconds=call.busy_seconds, cost=cost)
        self._record(scope, call, code)
        self.observed.log.info(
            "request.ended",
            request=call.name,
            trace=call.span.trace.trace_id,
            tenant=call.tenant,
            path=call.route,
            code=code,
            outcome=outcome,
            problem=call.problem,
            seconds=round(seconds, 4),
            first_token=_rounded(call.first_seconds),
            queued=round(call.queued_seconds, 4),
            prompt_tokens=call.prompt_tokens,
            answer_tokens=call.generated_tokens,
            resumed=call.resumed,
            served_by=call.served_by,
        )

    def _record(self, scope: Scope, call: RequestContext, code: int) -> None:
        """End the request's span."""
        if call.problem:
            call.span.fail(call.problem)
        attributes = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "http.response.status_code": code,
            "gen_ai.operation.name": OPERATIONS.get(scope["path"]),
            "gen_ai.response.model": self.observed.model,
            "gen_ai.usage.input_tokens": call.prompt_tokens,
            "gen_ai.usage.output_tokens": call.generated_tokens,
            "headway.request.id": call.name,
        }
        call.span.set(
            attributes,
            tenant=call.tenant,
            queue_seconds=call.queued_seconds,
            first_token_seconds=call.first_seconds,
            resumed=call.resumed,
            served_by=call.served_by,
        )
        call.span.end()


def _outcome(call: RequestContext, code: int) -> str:
    """How a request ended."""
    if call.problem == LATE:
        return "late"
    if call.problem or code >= 500:
        return "failed"
    if code >= 400 and code != GONE:
        return "refused"
    return "ok" if call.answer.whole else "gone"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
