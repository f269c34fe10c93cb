"""Errors in the shape of OpenAI's API, which OpenAI clients understand."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

INVALID_REQUEST = "invalid_request_error"
"""Type of an error that the request caused; sending it again does not help."""
SERVER_FAULT = "server_error"
"""Type of an error that the service caused."""
INTERNAL_ERROR = "internal_error"
"""Code of an error at which the service itself failed."""


class ApiError(Exception):
    """An error response. Whatever refuses a request raises one, and `ErrorResponses` sends it to the client."""

    def __init__(
        self, status: int, message: str, *, kind: str, code: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """`message` is for people; `kind` (OpenAI's `type`) and `code` are for programs."""
        super().__init__(message)
        self.status, self.kind, self.code, self.headers = status, kind, code, headers

    def response(self) -> Response:
        """The error as a whole response."""
        content = to_json(self._document())  # faster than Starlette's JSONResponse: refusals are many under overload
        return Response(content, status_code=self.status, headers=self.headers, media_type="application/json")

    def event(self) -> bytes:
        """The error as the last event of a stream (SSE), after its status was sent."""
        return f"data: {json.dumps(self._document())}\n\n".encode()

    def _document(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.code}}


def error_of_status(status: int) -> ApiError:
    """The error for a status of which nothing else is known."""
    kind = SERVER_FAULT if status >= 500 else INVALID_REQUEST
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    return ApiError(status, f"{phrase}.", kind=kind, code=str(status))


def internal_error(request_id: str) -> ApiError:
    """The error of a request at which the service itself failed. What failed stands in the log only."""
    message = f"The service failed at this request. Its log says why, under the request ID {request_id}."
    headers = {"Connection": "close"}  # the server closes it when it sees what failed
    return ApiError(500, message, kind=SERVER_FAULT, code=INTERNAL_ERROR, headers=headers)
