"""Whose fault an error is: what vLLM takes for its own, though it is the request's, becomes a 400 in words.

Each case here was found by asking (`tests/integration/test_schema.py`).
"""

from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headway.serve.refusal import refusal
from headway.serve.request_context import CURRENT
from headway.serve.telemetry_sinks import telemetry_sinks

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.exceptions import EngineGenerateError

KIND = "invalid_request_error"
SURPRISES = (AttributeError, LookupError, AssertionError, RecursionError)
"""What is raised where a body is not of the shape that a reader takes for granted."""


def tell(app: FastAPI) -> None:
    """Have `app` answer every error in OpenAI's shape, and blame a request for what its body does to its readers."""
    before = app.exception_handlers[Exception]

    async def refused(_: Request, error: Exception) -> Response:
        """What the framework says by itself: it has a shape of its own."""
        assert isinstance(error, HTTPException)
        headers = error.headers
        return refusal(error.status_code, str(error.detail), kind=KIND, code=str(error.status_code), headers=headers)

    async def failed(request: Request, error: Exception) -> Response:
        """An error that nobody expected: until the engine is asked, all that was done is reading what came."""
        call = CURRENT.get()
        if call and not call.asked:
            telemetry_sinks().log.warning("request.unreadable", request=call.name, problem=repr(error))
            return refusal(
                400, f"The body is not of the shape it should have: {error!r}", kind=KIND, code="invalid_body"
            )
        answer: Response = await before(request, error)  # type: ignore[misc]  # vLLM's waits
        return answer

    app.exception_handler(HTTPException)(refused)
    for kind in SURPRISES:  # not Exception: its handler is asked last, and what it answers is raised all the same
        app.exception_handler(kind)(failed)
    app.middleware_stack = None  # vLLM has put it together already, with the handlers of then


def of_the_request(error: "EngineGenerateError") -> bool:
    """Whether an engine's error is that what was asked cannot even be told to it, as vLLM sees it elsewhere, too."""
    return isinstance(error.__cause__, (ValueError, TypeError, OverflowError))


def ungrammatical(output: "RequestOutput") -> bool:
    """Whether the engine gave a request up: of one with a grammar, because that cannot be compiled or followed."""
    return any(each.finish_reason == "error" for each in output.outputs)
