"""The body of a request: parsed once for all middleware, received again by the application."""

import asyncio
from typing import Any

import pytest
from pydantic_core import from_json
from starlette.types import Message

from headway.serve import request_body
from headway.serve.request_body import RequestBody


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was parsed so far."""
    contents: list[bytes] = []

    def record(content: bytes, **options: Any) -> Any:
        contents.append(content)
        return from_json(content, **options)

    monkeypatch.setattr(request_body, "from_json", record)
    return contents


@pytest.mark.parametrize(("content", "fields"), [(b'{"a": [1]}', {"a": [1]}), (b"[]", None), (b"{", None)])
def test_a_body_is_parsed_once(parsed: list[bytes], content: bytes, fields: object) -> None:
    """Whether it is valid or not, and not before somebody asks."""
    body = RequestBody(content)
    assert not parsed
    for _ in range(3):
        assert body.fields == fields
        assert (body.problem is None) == (fields is not None)
    assert parsed == [content]


def test_the_application_receives_the_body_again(parsed: list[bytes]) -> None:
    """Each time, and after it what the client sends; the parsed object takes no memory meanwhile."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def scenario() -> None:
        body = RequestBody(b'{"a": 1}')
        assert body.fields
        for _ in range(2):
            replayed = body.replay(receive)
            assert [await replayed(), await replayed(), await replayed()] == [
                {"type": "http.request", "body": b'{"a": 1}', "more_body": False},
                {"type": "http.disconnect"},
                {"type": "http.disconnect"},
            ]
        assert len(parsed) == 1
        assert body.fields
        assert len(parsed) == 2

    asyncio.run(scenario())
