"""Errors in the shape of OpenAI's API, which OpenAI clients understand."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

INVALID_REQUEST = "invalid_request_error"
"""Type of an error that the request caused; sending it again does not help."""


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
