"""What is offered, and what of it makes sense: the links that refuse the rest, and which errors are a request's own."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, model_validator
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from headway.serve import error_handlers
from headway.serve.config import VARIABLE, ServeConfig
from headway.serve.memory_budget import MemoryBudget
from headway.serve.request_body import RequestBody
from headway.serve.request_context import CURRENT
from headway.serve.request_id import RequestId
from headway.serve.routes import OFFERED, Routes
from headway.serve.validation import Validation
from headway.telemetry import Spans


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Say how much came."""
    message: Message = {"body": b""} if scope["method"] == "GET" else await receive()
    await JSONResponse({"bytes": len(message["body"])})(scope, receive, send)


def behind(*links: Middleware) -> TestClient:
    """A client of the echo behind these links, the first being the outermost."""
    app: Any = echo
    for each in [*links[::-1], Middleware(RequestId, spans=Spans("headway-serve", on=False))]:
        app = each.cls(app, *each.args, **each.kwargs)
    return TestClient(app)


SOUND = (
    Middleware(RequestBody, most_bytes=2**22, most_seconds=10.0, room=MemoryBudget(2**30)),
    Middleware(Validation, most=8),
)


@pytest.mark.parametrize("path", OFFERED)
def test_what_is_offered_passes(path: str) -> None:
    """By its method, and by no other."""
    client = behind(Middleware(Routes))
    for method in ("GET", "POST", "OPTIONS", "PUT", "DELETE"):
        answer = client.request(method, path, content=b"{}" if method == "POST" else None)
        assert answer.status_code == (200 if method == OFFERED[path] else 405)
        assert answer.is_success or answer.headers["Allow"] == OFFERED[path]


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/completions/", "/V1/completions", "/scale_elastic_ep", "/v1//models"]
)
def test_whatever_else_there_is_does_not_exist(path: str) -> None:
    """Not even nearly."""
    answer = behind(Middleware(Routes)).post(path, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize(
    "sent",
    ["", "{", "[]", "1", "null", '"a"', '{"a": NaN}', "[" * 10_000, '{"a": "\\ud800"}', '{"a": 1} 2', "{'a': 1}"],
)
def test_what_is_no_json_object_is_refused(sent: str) -> None:
    """In words."""
    answer = behind(*SOUND).post("/v1/completions", content=sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")


@pytest.mark.parametrize(
    ("value", "status"),
    [(2**63 - 1, 200), (2**63, 400), (-(2**63), 200), (-(2**63) - 1, 400), ("9" * 40, 200), ([{"a": [2**64]}], 400)],
)
def test_numbers_are_of_64_bits(value: object, status: int) -> None:
    """However deep they are; digits of a text are no number."""
    assert behind(*SOUND).post("/v1/completions", json={"seed": value}).status_code == status


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"n": 8}, 200),
        ({"n": 9}, 400),
        ({"prompt": ["a"] * 8}, 200),
        ({"prompt": ["a"] * 9}, 400),
        ({"prompt": [[1]] * 4, "n": 2}, 200),
        ({"prompt": [[1]] * 4, "n": 3}, 400),
        ({"prompt": [1] * 900}, 200),
        ({"n": "many"}, 200),
    ],
)
def test_a_request_asks_for_so_many_answers(asked: dict[str, Any], status: int) -> None:
    """Prompts times n; what is of no sense is left to the engine."""
    answer = behind(*SOUND).post("/v1/completions", json=asked)
    assert answer.status_code == status
    if answer.is_success:
        assert answer.json()["bytes"] == len(answer.request.content)


def test_the_tokens_of_a_long_text_are_not_counted() -> None:
    """What would take seconds, while prompts wait."""
    sent = json.dumps({"prompt": "a" * 2**18})
    assert behind(*SOUND).post("/tokenize", content=sent).status_code == 413
    assert behind(*SOUND).post("/v1/completions", content=sent).status_code == 200


class Asked(BaseModel):
    """A body whose check takes for granted what it should not."""

    options: dict[str, int] | None = None

    @model_validator(mode="before")
    @classmethod
    def look(cls, data: Any) -> Any:
        """Stumble."""
        data.get("options", {}).get("a")
        return data


def test_an_error_is_the_requests_until_the_engine_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """While it is checked, and while it is made ready; from then on it is the service's own."""
    monkeypatch.setenv(VARIABLE, ServeConfig(folder=tmp_path, name="coder").model_dump_json())
    app = FastAPI()

    async def own(*_: Any) -> JSONResponse:
        return JSONResponse({"error": {"code": 500}}, status_code=500)

    app.exception_handler(Exception)(own)
    error_handlers.tell(app)

    @app.post("/v1/completions")
    async def complete(asked: Asked) -> dict[str, int]:
        if call := CURRENT.get():
            call.asked = bool(asked.options)
        return {"a": (asked.options or {})["b"]}

    client = TestClient(RequestId(app, Spans("headway-serve", on=False)), raise_server_exceptions=False)
    for sent, status in (({"options": 1}, 400), ({"options": {}}, 400), ({"options": {"c": 1}}, 500)):
        assert client.post("/v1/completions", json=sent).status_code == status
    assert client.post("/v1/completions", json={"options": {"b": 5}}).json() == {"a": 5}
    assert client.get("/nope").json()["error"]["type"] == "invalid_request_error"
