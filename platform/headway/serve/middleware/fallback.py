"""Fallback: another service responds while the engine cannot, for example with a smaller or a quantized model.

The engine and the upstream each have a circuit breaker: after failures in a row it blocks all requests except a probe
from time to time. A request that one of them fails goes to the other once, if the client has received nothing yet.
"""

import asyncio
import json
import os
from collections.abc import Callable

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.objectstore.breaker import CircuitBreaker
from headway.serve.middleware.request_body import replay
from headway.serve.middleware.request_id import REQUEST_ID_HEADER, TRACEPARENT_HEADER
from headway.serve.openai_error import error_event, error_response
from headway.serve.request_context import context_of

KEY_VARIABLE = "HEADWAY_FALLBACK_KEY"
"""Environment variable: API key for the upstream, if it needs one."""
SERVED_BY_HEADER = "X-Served-By"
"""Header of a response that the upstream gave: its model."""
MAX_FAILURES, REST_SECONDS = 3, 5.0
"""Failures in a row that open a circuit breaker, and the time between its probes [s]."""
CONNECT_SECONDS = 3.0
"""How long the upstream may take to accept a connection [s]."""
SERVER_ERROR = 500
"""Lowest status that counts as a failure."""
FORWARDED_HEADERS = {"content-type", "retry-after"}
"""Headers of the upstream's response that the client gets."""


class Fallback:
    """Middleware around vLLM's application that sends requests to the upstream while the engine cannot respond."""

    def __init__(self, app: ASGIApp, *, model: str, url: str, healthy: Callable[[], bool]) -> None:
        """`url`: base URL of the upstream (`.../v1`). `healthy`: returns whether an engine is live."""
        self.app, self.model, self.healthy = app, model, healthy
        self.engine_breaker = CircuitBreaker("the engine", MAX_FAILURES, REST_SECONDS)
        self.upstream = FallbackUpstream(url.rstrip("/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond from the engine, or else from the upstream."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        message = await receive()
        if message["type"] != "http.request":
            return
        healthy = self.healthy()
        if (
            healthy
            and self.engine_breaker.allow()
            and await self._respond_from_engine(scope, replay(message, receive), send)
        ):
            return
        body, needs_model = self._remove_model(message["body"])
        if await self.upstream.respond(scope, body, receive, send, needs_model=needs_model):
            return
        if healthy:
            context_of(scope).problem = "unavailable"
            await _send_unavailable(scope, receive, send)
        else:  # the application waits for the next engine
            await self.app(scope, replay(message, receive), send)

    async def _respond_from_engine(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Respond from the engine; False if it failed before the client received anything."""
        response = _FailureFilter(send)
        try:
            await self.app(scope, receive, response)
        except Exception as error:
            response.failure = error
            if response.started:
                self.engine_breaker.record(error)
                raise
        self.engine_breaker.record(response.failure)
        return response.failure is None

    def _remove_model(self, body: bytes) -> tuple[bytes, bool]:
        """Remove this service's model name from a body. Returns the body, and whether the name was in it."""
        try:
            request = json.loads(body)
        except ValueError:
            return body, False
        if not isinstance(request, dict) or request.get("model") != self.model:
            return body, False
        return json.dumps({name: value for name, value in request.items() if name != "model"}).encode(), True


class FallbackUpstream:
    """The service that answers while the engine cannot."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.breaker = CircuitBreaker(url, MAX_FAILURES, REST_SECONDS)
        key = os.environ.get(KEY_VARIABLE)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_SECONDS))
        self._model: str | None = None
        """Its model name, once it was requested."""

    async def respond(self, scope: Scope, body: bytes, receive: Receive, send: Send, *, needs_model: bool) -> bool:
        """Respond from the upstream; False if it failed before the client received anything.

        `needs_model`: whether its model name must be added to the body.
        """
        if not self.breaker.allow():
            return False
        response = _FailureFilter(send)
        forwarding = asyncio.ensure_future(self._forward(scope, body, response, needs_model=needs_model))
        disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({forwarding, disconnect}, return_when=asyncio.FIRST_COMPLETED)
            if not forwarding.done():  # the client left: neither a success nor a failure of the upstream
                return True
            await forwarding
        except httpx.HTTPError as error:
            response.failure = error
        finally:
            forwarding.cancel()
            disconnect.cancel()
        self.breaker.record(response.failure)
        if response.failure and response.started and not response.complete:
            context_of(scope).problem = "fallback_broke_off"
            event = error_event("The response broke off.", kind="server_error", code="broken")
            await send({"type": "http.response.body", "body": event})
        return response.started

    async def _forward(self, scope: Scope, body: bytes, send: Send, *, needs_model: bool) -> None:
        """Send the request to the upstream, and forward its response.

        Raises:
            httpx.HTTPError: it is unreachable, or its response broke off.
        """
        if needs_model:
            body = json.dumps(json.loads(body) | {"model": await self._model_name()}).encode()
        context = context_of(scope)
        headers = {
            **self._headers,
            REQUEST_ID_HEADER: context.request_id,
            TRACEPARENT_HEADER: str(context.span.trace),
            "Content-Type": "application/json",
        }
        url = self.url.removesuffix("/v1") + scope["path"]
        async with self._client.stream("POST", url, content=body, headers=headers) as upstream:
            served_by = self._model or self.url
            raw_headers = [pair for pair in upstream.headers.raw if pair[0].decode().lower() in FORWARDED_HEADERS]
            raw_headers.append((SERVED_BY_HEADER.encode(), served_by.encode()))
            await send({"type": "http.response.start", "status": upstream.status_code, "headers": raw_headers})
            async for piece in upstream.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        context.served_by = served_by

    async def _model_name(self) -> str:
        """Return the name of the upstream's model; requests it the first time."""
        if self._model is None:
            models = await self._client.get(f"{self.url}/models", headers=self._headers, timeout=CONNECT_SECONDS)
            models.raise_for_status()
            self._model = str(models.json()["data"][0]["id"])
        return self._model


class _FailureFilter:
    """Forwards a response, unless it starts with a server error: then the client receives nothing."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.failure: Exception | None = None
        """What failed, if anything did."""
        self.started = False
        """Whether the client has received something."""
        self.complete = False
        """Whether the client has received all of it."""

    async def __call__(self, message: Message) -> None:
        """Forward a message."""
        if message["type"] == "http.response.start" and message["status"] >= SERVER_ERROR:
            self.failure = RuntimeError(f"status {message['status']}")
        if self.failure:
            return
        self.started = True
        await self._send(message)
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with 503: neither the engine nor the upstream can respond."""
    seconds = round(REST_SECONDS)
    response = error_response(
        503,
        f"Neither the model nor its fallback can respond now. Try again in {seconds} s.",
        kind="service_unavailable_error",
        code="unavailable",
        headers={"Retry-After": str(seconds)},
    )
    await response(scope, receive, send)
