"""Another service that answers while the engine cannot: a smaller or a quantized version of the model.

Each of the two has a breaker: one that fails again and again is left in peace, and tried with a single request now and
then. What is not answered by the one is asked of the other once, and only if the client has heard nothing yet.
"""

import asyncio
import json
import os
from collections.abc import Callable

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.objectstore.breaker import CircuitBreaker
from headway.serve.refusal import refusal
from headway.serve.request_body import again
from headway.serve.request_context import RequestContext, context_of
from headway.serve.request_id import HEADER as NAME
from headway.serve.request_id import TRACE

KEY = "HEADWAY_FALLBACK_KEY"
"""Environment: the API key for the other service, if it wants one."""
SERVED_BY = "X-Served-By"
"""Header of an answer: the model that gave it, where it was not the one that was asked."""
FAILURES, REST_SECONDS = 3, 5.0
"""So many failures in a row, and an upstream is left in peace for so long [s]."""
CONNECT_SECONDS = 3.0
FAILED = 500


class Fallback:
    """The link that asks another service where the engine is of no use; it stands right before vLLM's application."""

    def __init__(self, app: ASGIApp, *, model: str, url: str, well: Callable[[], bool]) -> None:
        """`url` is the other service's, as an OpenAI client has it; `well` says whether there is an engine."""
        self.app, self.model, self.well = app, model, well
        self.engine = CircuitBreaker("the engine", FAILURES, REST_SECONDS)
        self.other = FallbackUpstream(url.rstrip("/"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request answered by the engine, or else by the other service."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        message = await receive()
        if message["type"] != "http.request":
            return
        well = self.well()
        if well and self.engine.admits() and await self._by_the_engine(scope, again(message, receive), send):
            return
        if await self.other.answer(scope, self._renamed(message["body"]), receive, send):
            return
        if well:
            context_of(scope).problem = "unavailable"
            await _unavailable(scope, receive, send)
        else:  # the engine's successor is on its way, and waited for
            await self.app(scope, again(message, receive), send)

    async def _by_the_engine(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Have the engine answer; False if it failed before the client heard anything."""
        first = _First(send)
        try:
            await self.app(scope, receive, first)
        except Exception as error:
            first.failure = error
            if first.passed:
                self.engine.record(error)
                raise
        self.engine.record(first.failure)
        return first.failure is None

    def _renamed(self, body: bytes) -> tuple[bytes, bool]:
        """The body without our model's name, and whether it was in it: the other service puts its own there."""
        try:
            asked = json.loads(body)
        except ValueError:
            return body, False
        if not isinstance(asked, dict) or asked.get("model") != self.model:
            return body, False
        return json.dumps({name: value for name, value in asked.items() if name != "model"}).encode(), True


class FallbackUpstream:
    """The other service."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.breaker = CircuitBreaker(url, FAILURES, REST_SECONDS)
        key = os.environ.get(KEY)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(None, connect=CONNECT_SECONDS))
        self._model: str | None = None

    async def answer(self, scope: Scope, asked: tuple[bytes, bool], receive: Receive, send: Send) -> bool:
        """Pass on what it answers; False if it failed before the client heard anything."""
        if not self.breaker.admits():
            return False
        relaying = asyncio.ensure_future(self._relay(scope, asked, first := _First(send)))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({relaying, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not relaying.done():  # nobody waits for it: no word on how it works
                return True
            await relaying
        except httpx.HTTPError as error:
            first.failure = error
        finally:
            relaying.cancel()
            leaving.cancel()
        self.breaker.record(first.failure)
        if first.failure and first.passed and not first.whole:
            context_of(scope).problem = "fallback_broke_off"
            told = {"message": "The answer broke off.", "type": "server_error", "param": None, "code": "broken"}
            await send({"type": "http.response.body", "body": f"data: {json.dumps({'error': told})}\n\n".encode()})
        return first.passed

    async def _relay(self, scope: Scope, asked: tuple[bytes, bool], send: Send) -> None:
        """Ask it, and pass on its answer.

        Raises:
            httpx.HTTPError: it is not there, or broke off.
        """
        body, nameless = asked
        if nameless:
            body = json.dumps(json.loads(body) | {"model": await self._name()}).encode()
        call: RequestContext = context_of(scope)
        told = {NAME: call.name, TRACE: str(call.span.trace), "Content-Type": "application/json"}
        url = self.url.removesuffix("/v1") + scope["path"]
        async with self._client.stream("POST", url, content=body, headers=self._headers | told) as answer:
            kept = {"content-type", "retry-after"}
            headers = [(name, value) for name, value in answer.headers.raw if name.decode().lower() in kept]
            headers.append((SERVED_BY.encode(), (self._model or self.url).encode()))
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            async for piece in answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        call.served_by = self._model or self.url

    async def _name(self) -> str:
        """What it calls its model."""
        if self._model is None:
            listed = await self._client.get(f"{self.url}/models", headers=self._headers, timeout=CONNECT_SECONDS)
            listed.raise_for_status()
            self._model = str(listed.json()["data"][0]["id"])
        return self._model


class _First:
    """Passes an answer on, unless it begins with a failure: then the client hears nothing of it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.failure: Exception | None = None
        self.passed = self.whole = False
        """Whether the client heard something of it; whether all."""

    async def __call__(self, message: Message) -> None:
        """Pass on a part of it."""
        if message["type"] == "http.response.start" and message["status"] >= FAILED:
            self.failure = RuntimeError(f"status {message['status']}")
        if self.failure:
            return
        self.passed = True
        await self._send(message)
        self.whole = message["type"] == "http.response.body" and not message.get("more_body", False)


async def _gone(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    """Neither can answer."""
    seconds = round(REST_SECONDS)
    answer = refusal(
        503,
        f"The model cannot answer now, nor can the one that stands in for it. Try again in {seconds} s.",
        kind="service_unavailable_error",
        code="unavailable",
        headers={"Retry-After": str(seconds)},
    )
    await answer(scope, receive, send)
