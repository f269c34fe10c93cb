"""The table of routes, the validation of bodies, and the errors that a request causes itself."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import BaseModel, model_validator
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from tests.unit.serve.replicas import behind, config, replica_runtime

from headway.serve.engine.error_handlers import MAX_CHARACTERS, MAX_PROBLEMS, install_error_handlers
from headway.serve.memory_budget import MemoryBudget
from headway.serve.middleware.buffering import Buffering
from headway.serve.middleware.route_allowlist import RouteAllowlist
from headway.serve.middleware.serve_bypass import ServeBypass
from headway.serve.middleware.validation import Validation
from headway.serve.request_context import CURRENT_REQUEST
from headway.serve.routes import ROUTES
from headway.telemetry import open_log


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the size of the body."""
    message: Message = {"body": b""} if scope["method"] == "GET" else await receive()
    await JSONResponse({"bytes": len(message["body"])})(scope, receive, send)


def echo_behind(*path: Middleware) -> TestClient:
    """A client of the echo behind this middleware."""
    return TestClient(behind(echo, *path))


VALIDATION = (
    Middleware(Buffering, config=config(), budget=MemoryBudget(2**30)),
    Middleware(Validation, max_choices=8),
    Middleware(ServeBypass, runtime=replica_runtime()),
)


@pytest.mark.parametrize("path", ROUTES)
def test_a_route_accepts_its_method_only(path: str) -> None:
    """Any other method gets a 405 that names the right one."""
    client = echo_behind(Middleware(RouteAllowlist))
    for method in ("GET", "POST", "OPTIONS", "PUT", "DELETE"):
        response = client.request(method, path, content=b"{}" if method == "POST" else None)
        assert response.status_code == (200 if method == ROUTES[path].method else 405)
        assert response.is_success or response.headers["Allow"] == ROUTES[path].method


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/completions/", "/V1/completions", "/scale_elastic_ep", "/v1//models"]
)
def test_any_other_path_does_not_exist(path: str) -> None:
    """Not even a path that differs in one character."""
    response = echo_behind(Middleware(RouteAllowlist)).post(path, json={})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "null", '"a"', '{"a": NaN}', "[" * 10_000, '{"a": "\\ud800"}', '{"a": 1} 2', "{'a': 1}"],
)
def test_a_body_that_is_not_a_json_object_is_refused(text: str) -> None:
    """The message says what is wrong."""
    response = echo_behind(*VALIDATION).post("/v1/completions", content=text)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_body")


@pytest.mark.parametrize(
    ("value", "status"),
    [(2**63 - 1, 200), (2**63, 400), (-(2**63), 200), (-(2**63) - 1, 400), ("9" * 40, 200), ([{"a": [2**64]}], 400)],
)
def test_integers_must_fit_into_64_bits(value: object, status: int) -> None:
    """At any depth; digits in a string are no number."""
    assert echo_behind(*VALIDATION).post("/v1/completions", json={"unknown": value}).status_code == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"n": 8}, 200),
        ({"n": 9}, 400),
        ({"prompt": ["a"] * 8}, 200),
        ({"prompt": ["a"] * 9}, 400),
        ({"prompt": [[1]] * 4, "n": 2}, 200),
        ({"prompt": [[1]] * 4, "n": 3}, 400),
        ({"prompt": [1] * 900}, 200),
        ({"n": "many"}, 400),
        ({"n": "9"}, 400),
        ({"n": "1"}, 400),
        ({"n": 9.0}, 400),
        ({"n": True}, 400),
    ],
)
def test_the_number_of_choices_is_limited(fields: dict[str, Any], status: int) -> None:
    """Prompts times n count; what the engine would make a number of is refused."""
    response = echo_behind(*VALIDATION).post("/v1/completions", json=fields)
    assert response.status_code == status
    if response.is_success:
        assert response.json()["bytes"] == len(response.request.content)


def test_a_long_text_is_not_tokenized() -> None:
    """Tokenizing it would take seconds, while prompts wait."""
    text = json.dumps({"prompt": "a" * 2**18})
    assert echo_behind(*VALIDATION).post("/tokenize", content=text).status_code == 413
    assert echo_behind(*VALIDATION).post("/v1/completions", content=text).status_code == 200


class Body(BaseModel):
    """A body whose validator assumes the shape of its fields."""

    options: dict[str, int] | None = None

    @model_validator(mode="before")
    @classmethod
    def read_option(cls, data: Any) -> Any:
        """Fail if `options` is not an object."""
        data.get("options", {}).get("a")
        return data


class Item(BaseModel):
    """A part of a body that has many kinds, each of which a model tries."""

    kind: int
    text: str


class Items(BaseModel):
    """A body with a list."""

    items: list[Item | list[int] | bool] = []
    names: dict[str, int] = {}


def test_a_message_names_few_problems_and_repeats_nothing() -> None:
    """However many there are, and however long a part of the body is; nor does an error of the framework."""
    app = FastAPI()
    app.exception_handler(Exception)(print)
    install_error_handlers(app, open_log())

    @app.post("/v1/completions")
    async def complete(body: Items) -> int:
        if body.items:
            return 0
        raise HTTPException(404, "secret" * 1000)

    client = TestClient(behind(app), raise_server_exceptions=False)
    secret = "secret" * 1000
    for fields, more in (
        ({"items": [{"kind": secret}] * 500}, 1990),
        ({"items": [secret] * 500}, 1490),
        ({"names": {secret: secret}}, 0),
        ({"names": {f"{secret}{number}": secret for number in range(100)}}, 90),
    ):
        response = client.post("/v1/completions", json=fields)
        error = response.json()["error"]
        assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_body")
        assert error["message"].endswith(f"; and {more} more." if more else ".")
        assert error["message"].count(";") == min(more, MAX_PROBLEMS)
        assert len(response.content) <= MAX_PROBLEMS * (2 * MAX_CHARACTERS + 20) + 200
        assert secret not in response.text
    response = client.post("/v1/completions", json={})
    assert response.status_code == 404
    assert len(response.content) < MAX_CHARACTERS + 200


def test_a_shape_error_is_a_400_until_the_engine_is_called() -> None:
    """After that it is a failure of the service."""
    app = FastAPI()

    async def own(*_: Any) -> JSONResponse:
        return JSONResponse({"error": {"code": 500}}, status_code=500)

    app.exception_handler(Exception)(own)
    install_error_handlers(app, open_log())

    @app.post("/v1/completions")
    async def complete(body: Body) -> dict[str, int]:
        if context := CURRENT_REQUEST.get():
            context.reached_engine = bool(body.options)
        return {"a": (body.options or {})["b"]}

    client = TestClient(behind(app), raise_server_exceptions=False)
    for text, status in (({"options": 1}, 400), ({"options": {}}, 400), ({"options": {"c": 1}}, 500)):
        assert client.post("/v1/completions", json=text).status_code == status
    assert client.post("/v1/completions", json={"options": {"b": 5}}).json() == {"a": 5}
    assert client.get("/nope").json()["error"]["type"] == "invalid_request_error"
