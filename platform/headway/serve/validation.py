"""What is asked is read once before anything is done with it: what no engine could answer is refused in words.

vLLM checks fields one by one, and takes some of what is wrong for a fault of its own. Here stands what concerns a body
as a whole: that it is a JSON object, that its numbers are of a size that computers count in, and that it asks for no
more at once than one request may: the engine would begin all of it, and everybody else would wait behind it.
"""

import re
from typing import Any

from pydantic_core import from_json
from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.estimate import choices
from headway.serve.refusal import refusal
from headway.serve.request_body import again

WHOLE = re.compile(rb"\d{19}")
"""Without so many digits in a row, no number is too large."""
LEAST, MOST = -(2**63), 2**63 - 1
"""Numbers that the engine can be told."""
TEXT_BYTES = {"/tokenize": 2**18}
"""Longest body by path [bytes]. vLLM counts the tokens of any text, one text at a time: prompts wait behind it."""


class Validation:
    """The link that lets through what makes sense; it stands behind `Body`."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        """`most`: answers that one request may ask for."""
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400 or 413."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        message = await receive()
        body = message.get("body", b"")
        longest = TEXT_BYTES.get(scope["path"])
        if longest is not None and len(body) > longest:
            told = (
                f"The request is larger than {longest} bytes, which is what {scope['path']} takes. Send less at once."
            )
            await refusal(413, told, kind="invalid_request_error", code="request_too_large")(scope, receive, send)
            return
        if wrong := self._wrong(body):
            await refusal(400, wrong, kind="invalid_request_error", code="invalid_body")(scope, receive, send)
            return
        await self.app(scope, again(message, receive), send)

    def _wrong(self, body: bytes) -> str | None:
        """What is wrong with a body; None if nothing is."""
        try:
            asked = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            return f"The body is not JSON that can be read: {error}"
        if not isinstance(asked, dict):
            return "The body is no JSON object."
        if WHOLE.search(body) and _too_large(asked):
            return "A number in the body is larger than 64 bits hold."
        if (count := choices(asked)) > self.most:
            return f"The request asks for {count} answers (prompts times n); one may ask for {self.most}."
        return None


def _too_large(asked: Any) -> bool:
    """Whether there is a whole number in it that does not fit."""
    left = [asked]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
        elif isinstance(each, int) and not LEAST <= each <= MOST:
            return True
    return False
