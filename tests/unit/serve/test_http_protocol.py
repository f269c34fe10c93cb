"""Heads have bounds: real connections to a real uvicorn, whose protocol is the replica's."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from headway.serve.process.http_protocol import MAX_PIPELINED, BoundedProtocol, HeadLimits

SECONDS = 30
"""A bound for hangs."""
BYTES, FIELDS, OPEN = 1000, 20, 3
"""Limits of the server."""
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSE = b"Connection: close\r\n\r\n"
OK = (200,)


class Server:
    """A server that responds to a request once it has read its body, and not before it may."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.limits = HeadLimits(max_bytes=BYTES, max_fields=FIELDS, seconds=seconds, max_open=OPEN, max_connections=0)
        self.may_respond = asyncio.Event()
        self.may_respond.set()
        self.requests = 0
        self.received = 0
        """Bytes of bodies."""

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        self.requests += 1
        more = scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.received += len(message["body"])
            more = message["more_body"]
        await self.may_respond.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of a client."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, *pieces: bytes) -> bytes:
        """Everything that a client gets who sends these pieces, one after the other, and reads to the end."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.001)
        answer = await reader.read()
        writer.close()
        return answer

    async def run(self, scenario: Callable[["Server"], Awaitable[None]]) -> None:
        """Run a scenario; afterwards nothing of its connections is left."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        protocol: Any = partial(BoundedProtocol, limits=self.limits)
        options: dict[str, Any] = {"lifespan": "off", "log_level": "critical", "timeout_keep_alive": SECONDS}
        server = uvicorn.Server(uvicorn.Config(self.respond, interface="asgi3", http=protocol, **options))
        task = asyncio.create_task(server._serve([listener]))  # noqa: SLF001 - without its signal handlers
        while not server.started:
            await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS):
            await scenario(self)
            while self.limits.connections:
                await asyncio.sleep(0.01)
        assert not self.limits.open_heads
        server.should_exit = True
        await task


def statuses(answer: bytes) -> tuple[int, ...]:
    """Status of each response."""
    return tuple(int(part.split()[1]) for part in answer.replace(b"HTTP/1.1 ", b"\0HTTP/1.1 ").split(b"\0")[1:])


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([GET + CLOSE], OK),
        ([GET + b"\r\n" + GET + b"\r\n" + GET + CLOSE], OK * 3),
        ([(GET + b"\r\n") * MAX_PIPELINED + GET + CLOSE], OK * (MAX_PIPELINED + 1)),
        ([(GET + b"\r\n") * 10 * MAX_PIPELINED], OK * (MAX_PIPELINED + 1)),
        ([b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n" + CLOSE], (431,)),
        ([b"GET /"] + [b"a" * 100] * 50, (431,)),
        ([GET, *([b"X: " + b"a" * 100 + b"\r\n"] * 50)], (431,)),
        ([GET + b"X: ", *([b"a" * 100] * 50)], (431,)),
        ([GET + b"X"] + [b"x" * 100] * 50, (431,)),
        ([GET + b"a: b\r\n" * 30 + CLOSE], (431,)),
        ([b"\r\n" * 100] * 10, (431,)),
        ([b"\x16\x03\x01hello\r\n\r\n"], (400,)),
        ([POST + LENGTH % 100_000, b"x" * 100_000], OK),
        ([POST + LENGTH % 100_000 + b"x" * 100_000], OK),
        ([CHUNKED, *([b"1\r\nx\r\n" * 1000] * 3), b"0\r\n\r\n"], OK),
        ([CHUNKED + b"1;", *([b"a" * 500] * 20)], (431,)),
        ([CHUNKED + b"0\r\n", *([b"X: " + b"a" * 100 + b"\r\n"] * 20)], (431,)),
        ([CHUNKED + b"0\r\nX: ", *([b"a" * 100] * 20)], (431,)),
        ([CHUNKED + b"0\r\n" + b"a: b\r\n" * 30], (431,)),
        ([POST.replace(CLOSE[:-2], b"") + LENGTH % 5000 + b"x", b"x" * 4999 + GET, CLOSE], OK * 2),
        ([POST + b"Expect: 100-continue\r\n" + LENGTH % 1, b"x"], (100, 200)),
    ],
    ids=[
        "a request",
        "pipelined",
        "many pipelined",
        "too many pipelined",
        "a long URL",
        "a long URL in pieces",
        "many headers in pieces",
        "a long value in pieces",
        "a long name in pieces",
        "too many headers",
        "empty lines",
        "no HTTP",
        "a body",
        "a body with its head",
        "chunks of a byte",
        "a long extension",
        "many trailers",
        "a long trailer",
        "too many trailers",
        "a head with the end of a long body",
        "expect",
    ],
)
def test_a_head_has_a_size(pieces: list[bytes], expected: tuple[int, ...]) -> None:
    """What is not a body counts, wherever it stands; a refusal reaches its client, and is JSON."""

    async def scenario(server: Server) -> None:
        answer = await server.exchange(*pieces)
        assert statuses(answer) == expected
        if expected[-1] >= 400:
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]

    server = Server()
    asyncio.run(server.run(scenario))
    assert server.received <= 100_000


@pytest.mark.parametrize("pieces", [[GET], [GET + b"X: y"], [b"G"], [b"\r\n"]], ids=["head", "line", "word", "empty"])
def test_a_head_has_a_time(pieces: list[bytes]) -> None:
    """Then it is given up with a 408."""

    async def scenario(server: Server) -> None:
        assert statuses(await server.exchange(*pieces)) == (408,)

    asyncio.run(Server(seconds=0.2).run(scenario))


def test_what_a_slow_client_sends_does_not_prolong_its_time() -> None:
    """A byte now and then is not enough."""

    async def scenario(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(GET)
        while server.limits.connections or not reader._buffer:  # type: ignore[attr-defined]  # noqa: SLF001
            writer.write(b"x")
            await asyncio.sleep(0.02)
        assert statuses(await reader.read()) == (408,)
        writer.close()

    asyncio.run(Server(seconds=0.3).run(scenario))


def test_a_response_in_progress_is_sent_whole_before_its_connection_ends() -> None:
    """Whatever the client sends after its request; nothing stands in the middle of a response."""

    async def scenario(server: Server) -> None:
        for rest in (GET, GET + b"X: " + b"a" * 2000, b"\x16\x03"):
            server.may_respond.clear()
            reader, writer = await server.connect()
            before = server.requests
            writer.write(GET + b"\r\n")
            while server.requests == before:
                await asyncio.sleep(0)
            writer.write(rest)
            await asyncio.sleep(0.4)  # longer than a head may take
            server.may_respond.set()
            assert statuses(await reader.read()) == OK
            writer.close()

    asyncio.run(Server(seconds=0.2).run(scenario))


def test_the_rest_of_a_body_that_nobody_wants_has_a_time() -> None:
    """Its request had its response."""

    async def scenario(server: Server) -> None:
        answer = await server.exchange(b"POST /early HTTP/1.1\r\nHost: x\r\n" + LENGTH % 100, b"x")
        assert statuses(answer) == OK

    asyncio.run(Server(seconds=0.2).run(scenario))


def test_the_oldest_of_too_many_open_heads_is_given_up() -> None:
    """Whoever is slow makes room for others."""

    async def scenario(server: Server) -> None:
        clients = [await server.connect() for _ in range(OPEN + 1)]
        for number, (_, writer) in enumerate(clients):
            writer.write(GET)
            while len(server.limits.open_heads) < min(number + 1, OPEN):
                await asyncio.sleep(0)
        assert statuses(await clients[0][0].read()) == (408,)
        for reader, writer in clients[1:]:
            writer.write(CLOSE)
            assert statuses(await reader.read()) == OK
        for _, writer in clients:
            writer.close()

    asyncio.run(Server().run(scenario))


def test_an_address_has_so_many_connections_and_no_more() -> None:
    """If there is a limit; one that ends makes room for another."""

    async def scenario(server: Server) -> None:
        server.limits.max_connections = 2
        clients = [await server.connect() for _ in range(2)]
        while server.limits.connections.total() < 2:
            await asyncio.sleep(0)
        refusal = await server.exchange()
        assert statuses(refusal) == (429,)
        assert b"retry-after: 1" in refusal
        clients[0][1].close()
        while server.limits.connections.total() == 3 or server.limits.connections.total() == 2:
            await asyncio.sleep(0.01)
        assert statuses(await server.exchange(GET + CLOSE)) == OK
        clients[1][1].close()

    asyncio.run(Server().run(scenario))


def test_a_websocket_leaves_nothing_behind() -> None:
    """Another protocol takes its connection over."""
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "

    async def scenario(server: Server) -> None:
        assert statuses(await server.exchange(GET + upgrade + b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")) == (403,)

    asyncio.run(Server().run(scenario))
