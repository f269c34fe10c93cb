"""The link that reads a body whole before anything is counted; against ASGI itself, and once over real sockets."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headway.serve.memory_budget import MemoryBudget
from headway.serve.request_body import ALWAYS_BYTES, RequestBody
from headway.serve.request_context import KEY, RequestContext
from headway.serve.request_id import RequestId
from headway.telemetry import Spans

MOST = 100
ROOM = 1000


class Inner:
    """An application that notes what it is told: all of a body, and what comes after it."""

    def __init__(self, *, listens_on: bool = False) -> None:
        self.listens_on = listens_on
        self.heard: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Hear one message, or one and the next; then answer."""
        for _ in range(1 + self.listens_on):
            self.heard.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


class Client:
    """What a client sends, piece by piece; after that it waits, and hears nothing, for as long as it is asked."""

    def __init__(self, *messages: Message) -> None:
        self.left = list(messages)

    async def receive(self) -> Message:
        """The next piece."""
        if not self.left:
            await asyncio.Event().wait()
        return self.left.pop(0)


def piece(body: bytes, *, more: bool = False) -> Message:
    """A part of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


def ask(
    app: Inner, client: Client, *, method: str = "POST", seconds: float = 60.0, **headers: str
) -> tuple[int | None, dict[str, str]]:
    """Status and headers of the answer to `client`; None and none if there was no answer."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/v1/completions", "headers": raw, KEY: RequestContext("x")}
    asyncio.run(asyncio.wait_for(RequestBody(app, MOST, seconds, MemoryBudget(ROOM))(scope, client.receive, send), 10))
    if not sent:
        return None, {}
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def test_a_body_in_pieces_is_handed_on_whole() -> None:
    """Once, as one message, and after that it is the client who is heard: its hanging up arrives."""
    inner = Inner(listens_on=True)
    client = Client(piece(b"a" * 50, more=True), piece(b"", more=True), piece(b"b" * 50), GONE)
    assert ask(inner, client, content_length="100")[0] == 200
    assert inner.heard == [piece(b"a" * 50 + b"b" * 50), GONE]


@pytest.mark.parametrize("announced", ["101", "9" * 30], ids=["a little", "absurd"])
def test_what_says_that_it_is_too_large_is_refused(announced: str) -> None:
    """With what is allowed; what comes all the same is heard and forgotten, lest the answer be lost on its way."""
    inner, client = Inner(), Client(piece(b"a" * 50, more=True), piece(b"a" * 51), GONE)
    status, headers = ask(inner, client, content_length=announced)
    assert (status, headers["connection"]) == (413, "close")
    assert (inner.heard, client.left) == ([], [GONE])


def test_a_client_that_asks_first_is_not_made_to_send() -> None:
    """`Expect: 100-continue`: it is told before it sends anything."""
    client = Client(GONE)
    assert ask(Inner(), client, content_length="101", expect="100-continue")[0] == 413
    assert client.left == [GONE]


@pytest.mark.parametrize("announced", ["", "10", "-1", "abc", "1e9", "²"])
def test_what_counts_is_what_comes(announced: str) -> None:
    """Whatever a client says or does not say of its length: the byte above the limit is one too many."""
    said = {"content_length": announced} if announced else {}
    parts = (piece(b"a" * 50, more=True), piece(b"a" * 50, more=True))
    assert ask(Inner(), Client(*parts, piece(b"")), **said)[0] == 200  # type: ignore[arg-type]
    over = Client(*parts, piece(b"a"))
    assert ask(Inner(), over, **said)[0] == 413  # type: ignore[arg-type]
    long = Client(*parts, piece(b"a", more=True), piece(b"a"), GONE)
    assert ask(Inner(), long, **said)[0] == 413  # type: ignore[arg-type]
    assert long.left == [GONE]


def test_a_client_that_is_too_slow_is_told_so() -> None:
    """Nothing behind the link ever hears of it, and its connection is closed."""
    inner = Inner()
    status, headers = ask(inner, Client(piece(b"a", more=True)), seconds=0.02)
    assert (status, headers["connection"], inner.heard) == (408, "close", [])


def test_a_flood_ends_in_time() -> None:
    """What is too large and never comes to its end is refused after the same time."""
    assert ask(Inner(), Client(piece(b"a", more=True)), seconds=0.02, content_length="101")[0] == 413


@pytest.mark.parametrize("before", [[], [piece(b"a", more=True)]], ids=["at once", "midway"])
def test_a_client_that_goes_before_it_has_asked_gets_nothing(before: list[Message]) -> None:
    """No answer, no error, nobody behind is troubled."""
    inner = Inner()
    assert ask(inner, Client(*before, GONE)) == (None, {})
    assert inner.heard == []


def test_what_is_no_post_passes_as_it_is() -> None:
    """A GET is not waited for."""
    inner = Inner()
    assert ask(inner, Client(piece(b"a" * 200)), method="GET")[0] == 200
    assert inner.heard == [piece(b"a" * 200)]


def test_an_error_behind_the_link_is_not_taken_for_a_slow_client() -> None:
    """A TimeoutError of the application is its own."""

    async def broken(*_: Any) -> None:
        raise TimeoutError("its own")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], KEY: RequestContext("x")}
    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(RequestBody(broken, MOST, 60.0, MemoryBudget(ROOM))(scope, Client(piece(b"")).receive, broken))


def test_bodies_have_room_for_so_much_together() -> None:
    """One for which there is none now is told to come again, read by then or not; a short one always passes."""
    room = MemoryBudget(ROOM)

    async def status(link: RequestBody, *messages: Message) -> tuple[int, list[tuple[bytes, bytes]]]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], KEY: RequestContext("x")}
        await link(scope, Client(*messages).receive, send)
        return sent[0]["status"], sent[0]["headers"]

    def link(app: ASGIApp) -> RequestBody:
        return RequestBody(app, most_bytes=2**20, most_seconds=60.0, room=room)

    async def while_one_is_answered(scope: Scope, receive: Receive, send: Send) -> None:
        """What others hear meanwhile."""
        fits = ALWAYS_BYTES + ROOM - 600
        assert (await status(link(Inner()), piece(b"a" * fits)))[0] == 200
        code, headers = await status(link(Inner()), piece(b"a" * fits, more=True), piece(b"a"))
        assert (code, (b"retry-after", b"1") in headers, (b"connection", b"close") in headers) == (429, True, True)
        assert (await status(link(Inner()), piece(b"a" * ALWAYS_BYTES)))[0] == 200
        await Inner()(scope, receive, send)

    async def both() -> None:
        assert (await status(link(while_one_is_answered), piece(b"a" * (ALWAYS_BYTES + 600))))[0] == 200

    asyncio.run(both())
    assert room.left == ROOM


@contextmanager
def listening() -> Iterator[int]:
    """The link in a real server, as the replica has it; gives its port."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            RequestId(RequestBody(Inner(), MOST, 0.5, MemoryBudget(ROOM)), Spans("headway-serve", on=False)),
            log_level="critical",
            lifespan="off",
            http="httptools",
        )
        server = uvicorn.Server(config)
        thread = Thread(target=lambda: asyncio.run(server.serve([listener])))
        listener.listen()
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


def test_answers_arrive_over_real_sockets() -> None:
    """Also that of a body of 8 MiB, which its client sends whole before it listens; and of one that never comes."""
    with listening() as port, closing(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)) as client:
        assert client.post("/", content=b"a" * 100).status_code == 200
        assert [client.post("/", content=b"a" * 2**23).status_code for _ in range(4)] == [413] * 4
        assert client.post("/", content=iter([b"a" * 2**20] * 8)).status_code == 413
        with socket.create_connection(("127.0.0.1", port), timeout=10) as slow:
            slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            told = b"".join(iter(lambda: slow.recv(4096), b""))  # until it is closed
        assert told.startswith(b"HTTP/1.1 408 ")
