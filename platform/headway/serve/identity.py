"""The name of a request: the client's own or a new one, told to the engine and back to the client."""

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.call import CURRENT, KEY, Call

HEADER = "X-Request-ID"
GOOD = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What is taken from a client: nothing that would break a log line or a header."""


class Identity:
    """The first link: every request has an id, by which it is called, and every response says it, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        name = given if GOOD.fullmatch(given) else secrets.token_hex(16)
        headers = MutableHeaders(raw=list(scope["headers"]))
        headers[HEADER] = name

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        call = Call(name)
        CURRENT.set(call)
        await self.app({**scope, "headers": headers.raw, KEY: call}, receive, answer)
