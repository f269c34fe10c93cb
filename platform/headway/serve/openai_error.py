"""Errors in the shape of OpenAI's API, which OpenAI clients understand."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

INVALID_REQUEST = "invalid_request_error"
"""Type of an error that the request caused; sending it again does not help."""


def error_response(
    status: int, message: str, *, kind: str, code: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error response: `message` is for people, `kind` (OpenAI's `type`) and `code` are for programs."""
    return JSONResponse(_document(message, kind, code), status_code=status, headers=headers)


def error_event(message: str, *, kind: str, code: str) -> bytes:
    """An error as the last event of a stream (SSE), after its status was sent."""
    return f"data: {json.dumps(_document(message, kind, code))}\n\n".encode()


def _document(message: str, kind: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
