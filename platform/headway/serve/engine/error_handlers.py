"""Exception handlers of the application: errors that the request caused become a 400 with a message of bounded length.

vLLM reports some of them as its own failure, and repeats in others what was sent. Each case here was found by sending
requests (`tests/integration/test_schema.py`).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headway.events.serving_events import RequestUnreadable
from headway.serve.openai_error import INVALID_REQUEST, ApiError
from headway.serve.request_context import CURRENT_REQUEST
from headway.telemetry import Log

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.exceptions import EngineGenerateError

SHAPE_ERRORS = (AttributeError, LookupError, AssertionError, RecursionError)
"""Errors that vLLM raises where a body does not have the shape that its code assumes."""
MAX_PROBLEMS = 10
"""Problems of a body that a response names."""
MAX_CHARACTERS = 500
"""Characters of a message of somebody else's making; the rest, which may repeat what was sent, is cut off."""


def install_error_handlers(app: FastAPI, log: Log) -> None:
    """Make `app` report every error in OpenAI's shape and in few words, and errors about a request's body as a 400."""
    default_handler = app.exception_handlers[Exception]

    async def handle_http_error(_: Request, error: Exception) -> Response:
        """Handle an error of the framework, whose own response has another shape."""
        assert isinstance(error, HTTPException)
        status, headers = error.status_code, error.headers
        message = shorten(str(error.detail))
        return ApiError(status, message, kind=INVALID_REQUEST, code=str(status), headers=headers).response()

    async def handle_shape_error(request: Request, error: Exception) -> Response:
        """Handle an unexpected error. Before the engine is called, only the body can be its cause."""
        context = CURRENT_REQUEST.get()
        if context and not context.reached_engine:
            problem = shorten(repr(error))
            log.write(RequestUnreadable(request=context.request_id, problem=problem))
            message = f"The body does not have the expected shape: {problem}"
            return ApiError(400, message, kind=INVALID_REQUEST, code="invalid_body").response()
        response: Response = await default_handler(request, error)  # type: ignore[misc]  # vLLM's is a coroutine
        return response

    async def handle_invalid_body(_: Request, error: Exception) -> Response:
        """Handle a body that a model refuses; the model's own message repeats the body for each of its problems."""
        assert isinstance(error, RequestValidationError)
        return ApiError(400, describe_problems(error.errors()), kind=INVALID_REQUEST, code="invalid_body").response()

    app.exception_handler(HTTPException)(handle_http_error)
    app.exception_handler(RequestValidationError)(handle_invalid_body)
    for kind in SHAPE_ERRORS:  # not Exception: Starlette raises an error again after that handler's response
        app.exception_handler(kind)(handle_shape_error)


def describe_problems(problems: Iterable[Any]) -> str:
    """Describe the first problems that a model has with a body, and say how many more there are."""
    texts: list[str] = []
    rest = 0
    for problem in problems:
        if len(texts) < MAX_PROBLEMS:
            place = ".".join(map(str, problem.get("loc", ())))
            texts.append(f"{shorten(place)}: {shorten(str(problem.get('msg', '')))}")
        else:
            rest += 1
    return "; ".join(texts) + (f"; and {rest} more." if rest else ".")


def shorten(message: str) -> str:
    """Cut a message off where it becomes too long."""
    return message if len(message) <= MAX_CHARACTERS else f"{message[:MAX_CHARACTERS]}..."


def is_request_error(error: "EngineGenerateError") -> bool:
    """Whether the engine failed because the request cannot be passed to it; vLLM uses the same types elsewhere."""
    return isinstance(error.__cause__, (ValueError, TypeError, OverflowError))


def has_failed(output: "RequestOutput") -> bool:
    """Whether the engine gave the request up; with a grammar, because it can be neither compiled nor followed."""
    return any(choice.finish_reason == "error" for choice in output.outputs)
