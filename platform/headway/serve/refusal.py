"""A request that is not let through: an answer as OpenAI's API gives it, which clients understand."""

from collections.abc import Mapping

from starlette.responses import JSONResponse


def refusal(
    status: int, message: str, *, kind: str, code: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error with OpenAI's shape: `message` for a person, `kind` and `code` for a program."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)
