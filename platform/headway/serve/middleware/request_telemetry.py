"""Telemetry of each request: metrics, a span and a log line, all under one id.

The id is the trace id, unless the client sent its own; then log lines, spans and exemplars carry both.
"""

import time
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.events.serving_events import RequestEnded
from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.request_context import CANCELLED, DEADLINE_EXCEEDED, RequestContext, context_of
from headway.serve.response_hooks import SERVER_ERROR
from headway.serve.routes import route_of
from headway.serve.telemetry_sinks import TelemetrySinks

CLIENT_CLOSED = 499
"""Status of a request whose client left before the response started (nginx's code)."""


class RequestTelemetry(HttpMiddleware):
    """Middleware that records each request, from its arrival to its end."""

    def __init__(self, app: ASGIApp, sinks: TelemetrySinks) -> None:
        super().__init__(app)
        self.sinks = sinks

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and record how it ended, once the engine computes nothing more for it."""
        context = context_of(scope)
        try:
            await self.app(scope, receive, send)
        except Exception as error:  # any: it counts as the response that the client gets
            await context.fail(error)
            raise
        except BaseException:
            context.problem = context.problem or CANCELLED
            raise
        finally:
            try:
                await context.stop()
            finally:
                self._record(scope, context)

    def _record(self, scope: Scope, context: RequestContext) -> None:
        """Record a request in each place. One that fails keeps it out of none of the others."""
        if route_of(scope).probe and not context.is_broken:
            return
        code = context.response.status or (SERVER_ERROR if context.problem else CLIENT_CLOSED)
        outcome = _outcome(context, code)
        seconds = time.perf_counter() - context.arrival
        records = (
            partial(self._update_metrics, context, code, outcome, seconds),
            partial(self._end_span, scope, context, code),
            partial(self._write_line, context, code, outcome, seconds),
        )
        for record in records:
            try:
                record()
            except Exception as error:  # any: telemetry is no reason to break a connection
                context.report(error)

    def _write_line(self, context: RequestContext, code: int, outcome: str, seconds: float) -> None:
        ended = RequestEnded(
            request=context.request_id,
            trace=context.span.trace.trace_id,
            tenant=context.tenant,
            path=context.path_label,
            code=code,
            outcome=outcome,
            problem=context.problem,
            seconds=round(seconds, 4),
            first_token=_round(context.first_token_seconds),
            queued=round(context.queue_seconds, 4),
            prompt_tokens=context.prompt_tokens,
            answer_tokens=context.generated_tokens,
            resumed=context.resumptions,
            served_by=context.served_by,
        )
        self.sinks.log.write(ended)

    def _update_metrics(self, context: RequestContext, code: int, outcome: str, seconds: float) -> None:
        metrics, tenant = self.sinks.metrics, context.tenant
        exemplar = {"trace_id": context.span.trace.trace_id}
        if context.request_id != context.span.trace.trace_id:
            exemplar["request_id"] = context.request_id
        metrics.record_request(
            tenant=tenant, path=context.path_label, code=code, outcome=outcome, seconds=seconds, exemplar=exemplar
        )
        metrics.record_replay(prompt_tokens=context.replayed_prompt_tokens, generated_tokens=context.replayed_tokens)
        if context.prompt_tokens or context.generated_tokens:
            metrics.record_generation(
                tenant=tenant,
                first_token_seconds=context.first_token_seconds,
                token_seconds=context.seconds_per_token,
                queue_seconds=context.queue_seconds,
                prompt_tokens=context.prompt_tokens,
                generated_tokens=context.generated_tokens,
                exemplar=exemplar,
            )
        if context.busy_seconds:
            cost = context.busy_seconds * self.sinks.price_per_second
            metrics.record_device_time(tenant=tenant, seconds=context.busy_seconds, cost=cost)

    def _end_span(self, scope: Scope, context: RequestContext, code: int) -> None:
        if context.problem:
            context.span.fail(context.problem)
        attributes: dict[str, Any] = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "http.response.status_code": code,
            "gen_ai.operation.name": route_of(scope).operation,
            "gen_ai.response.model": self.sinks.model,
            "gen_ai.usage.input_tokens": context.prompt_tokens,
            "gen_ai.usage.output_tokens": context.generated_tokens,
            "headway.request.id": context.request_id,
        }
        context.span.set(
            attributes,
            tenant=context.tenant,
            queue_seconds=context.queue_seconds,
            first_token_seconds=context.first_token_seconds,
            resumed=context.resumptions,
            served_by=context.served_by,
        )
        context.span.end()


def _outcome(context: RequestContext, code: int) -> str:
    """How a request ended: ok, refused, failed, late or gone."""
    if context.problem == DEADLINE_EXCEEDED:
        return "late"
    if context.problem or code >= 500:
        return "failed"
    if code >= 400 and context.response.status:
        return "refused"
    return "ok" if context.response.complete else "gone"


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
