"""The way back: the one wrapper of a response, its hooks, and what ends a response early."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Message

from headway.serve.openai_error import ApiError
from headway.serve.response_hooks import ResponseHooks, StartHook, TentativeResponse

ERROR = ApiError(504, "late", kind="timeout_error", code="late")


def start(status: int = 200, media: bytes = b"text/event-stream") -> Message:
    """The first message of a response."""
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", media)]}


def piece(body: bytes, *, more: bool = True) -> Message:
    """A piece of its body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


class Client:
    """A client that records what it receives."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.response = ResponseHooks(self.receive)

    async def receive(self, message: Message) -> None:
        """Receive a message."""
        self.received.append(message)

    @property
    def statuses(self) -> list[int]:
        """Status of each response that started."""
        return [each["status"] for each in self.received if each["type"] == "http.response.start"]

    @property
    def text(self) -> bytes:
        """All pieces."""
        return b"".join(each.get("body", b"") for each in self.received)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in its own event loop."""
    asyncio.run(scenario)


def test_hooks_are_called_once_from_the_inside_out() -> None:
    """A response passes the innermost middleware first; a request without an end calls those of the end too."""
    calls: list[str] = []
    client = Client()

    def on_start(name: str) -> StartHook:
        async def hook(_: Message) -> None:
            calls.append(name)

        return hook

    async def on_end() -> None:
        calls.append(f"end {len(client.received)} {client.response.complete}")

    async def scenario() -> None:
        client.response.on_start += [on_start("outer"), on_start("inner")]
        client.response.on_end.append(on_end)
        await client.response(start())
        await client.response(piece(b"a"))
        assert calls == ["inner", "outer"]
        await client.response(piece(b"", more=False))
        await client.response.close()
        assert calls == ["inner", "outer", "end 2 False"]
        assert client.response.complete
        broken = ResponseHooks()
        broken.on_end.append(on_end)
        await broken.close()
        await broken.close()
        assert calls[3:] == ["end 3 True"]

    run(scenario())


def test_an_error_takes_the_place_of_a_response_that_has_not_started() -> None:
    """What the application still sends is dropped; the hooks see the error."""
    client = Client()
    statuses: list[int] = []

    async def hook(message: Message) -> None:
        statuses.append(message["status"])

    async def scenario() -> None:
        client.response.on_start.append(hook)
        await client.response.fail(ERROR)
        await client.response(start())
        await client.response(piece(b"too late", more=False))
        assert (client.statuses, statuses, client.response.status) == ([504], [504], 504)
        assert b'"late"' in client.text
        assert b"too late" not in client.text
        assert client.response.complete

    run(scenario())


def test_an_error_ends_a_stream_that_has_started() -> None:
    """It is its last event, once."""
    client = Client()

    async def scenario() -> None:
        await client.response(start())
        await client.response(piece(b"data: 1\n\n"))
        await client.response.fail(ERROR)
        await client.response.fail(ERROR)
        await client.response(piece(b"too late"))
        assert client.text == b"data: 1\n\n" + ERROR.event()
        assert client.response.complete

    run(scenario())


def test_a_response_that_has_started_and_is_no_stream_is_left_incomplete() -> None:
    """An event in the middle of a JSON document would look like its end."""
    client = Client()

    async def scenario() -> None:
        await client.response(start(media=b"application/json"))
        await client.response(piece(b'{"a"'))
        await client.response.fail(ERROR)
        await client.response(piece(b": 1}", more=False))
        assert (client.text, client.response.complete) == (b'{"a"', False)

    run(scenario())


def test_a_complete_response_gets_no_error() -> None:
    """The client has what it asked for."""
    client = Client()

    async def scenario() -> None:
        await client.response(start())
        await client.response(piece(b"data: 1\n\n", more=False))
        await client.response.fail(ERROR)
        assert client.text == b"data: 1\n\n"

    run(scenario())


def test_a_server_error_is_held_back_for_another_response() -> None:
    """Neither outer hooks nor the client see anything of it; the next response passes."""
    client = Client()
    statuses: list[int] = []

    async def hook(message: Message) -> None:
        statuses.append(message["status"])

    async def scenario() -> None:
        client.response.on_start.append(hook)
        with TentativeResponse(client.response) as attempt:
            await client.response(start(503))
            await client.response(piece(b"broken", more=False))
        assert str(attempt.failure) == "status 503"
        assert (client.received, client.response.status, client.response.is_ending) == ([], 0, False)
        with TentativeResponse(client.response) as attempt:
            await client.response(start(200))
            await client.response(piece(b"whole", more=False))
        assert attempt.failure is None
        assert (client.statuses, client.text, statuses) == ([200], b"whole", [200])

    run(scenario())


def test_nothing_follows_an_error_that_ended_an_attempt() -> None:
    """A deadline passes while the engine is tried: the upstream's response comes too late."""
    client = Client()

    async def scenario() -> None:
        with TentativeResponse(client.response) as attempt:
            await client.response.fail(ERROR)
        assert attempt.failure is None
        with TentativeResponse(client.response) as attempt:
            await client.response(start(200))
            await client.response(piece(b"too late", more=False))
        assert (client.statuses, attempt.failure) == ([504], None)
        assert b"too late" not in client.text

    run(scenario())
