"""Upstream: the service that responds while the engine cannot (`--fallback URL`)."""

import asyncio
import json
import os

import httpx
from starlette.types import Receive, Scope, Send

from headway.objectstore.breaker import CircuitBreaker
from headway.serve.middleware.request_id import REQUEST_ID_HEADER, TRACEPARENT_HEADER
from headway.serve.openai_error import ApiError
from headway.serve.request_context import body_of, context_of
from headway.serve.response_hooks import TentativeResponse

KEY_VARIABLE = "HEADWAY_FALLBACK_KEY"
"""Environment variable: API key for the upstream, if it needs one."""
SERVED_BY_HEADER = "X-Served-By"
"""Header of a response that the upstream gave: its model."""
MAX_FAILURES, REST_SECONDS = 3, 5.0
"""Failures in a row that open a circuit breaker, and the time between its probes [s]."""
CONNECT_SECONDS = 3.0
"""How long the upstream may take to accept a connection [s]."""
FORWARDED_HEADERS = {"content-type", "retry-after"}
"""Headers of the upstream's response that the client gets."""


class Upstream:
    """The service that responds while the engine cannot."""

    def __init__(self, url: str, model: str) -> None:
        """`url`: its base URL (`.../v1`). `model`: name of this service's model, which the upstream does not know."""
        self.url, self.model = url.rstrip("/"), model
        self.breaker = CircuitBreaker(self.url, MAX_FAILURES, REST_SECONDS)
        key = os.environ.get(KEY_VARIABLE)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_SECONDS))
        self._model: str | None = None
        """Its model name, once it was requested."""

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Respond from the upstream; False if it failed before the client received anything."""
        if not self.breaker.allow():
            return False
        context = context_of(scope)
        with TentativeResponse(context.response) as attempt:
            forwarding = asyncio.ensure_future(self._forward(scope, send))
            disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
            try:
                await asyncio.wait({forwarding, disconnect}, return_when=asyncio.FIRST_COMPLETED)
                if not forwarding.done():  # the client left: neither a success nor a failure of the upstream
                    return True
                await forwarding
            except httpx.HTTPError as error:
                attempt.failure = error
            finally:
                forwarding.cancel()
                disconnect.cancel()
        self.breaker.record(attempt.failure)
        if attempt.failure and context.response.status and not context.response.complete:
            context.problem = "fallback_broke_off"
            await context.response.fail(ApiError(502, "The response broke off.", kind="server_error", code="broken"))
        return context.response.status != 0

    async def _forward(self, scope: Scope, send: Send) -> None:
        """Send the request to the upstream, and forward its response.

        Raises:
            httpx.HTTPError: it is unreachable, or its response broke off.
        """
        context, body = context_of(scope), body_of(scope)
        content, fields = body.content, body.fields
        if fields is not None and fields.get("model") == self.model:
            content = json.dumps(fields | {"model": await self._model_name()}).encode()
        headers = {
            **self._headers,
            REQUEST_ID_HEADER: context.request_id,
            TRACEPARENT_HEADER: str(context.span.trace),
            "Content-Type": "application/json",
        }
        url = self.url.removesuffix("/v1") + scope["path"]
        async with self._client.stream("POST", url, content=content, headers=headers) as upstream:
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


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
