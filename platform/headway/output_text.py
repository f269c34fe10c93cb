r"""What Headway prints, whoever wrote it: text without control characters, and strict JSON.

A name, a reason or a log line may hold terminal escapes, which could move the cursor, hide lines or set the clipboard.
They are printed as their escape in Python: `\x1b`.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # they change the direction of the text around them
    "\u2028\u2029\ud800-\udfff"  # line ends of their own, and halves of surrogate pairs, which have no UTF-8
)
IN_TEXT = re.compile(f"[{UNSAFE}]")
IN_LINE = re.compile(f"[{UNSAFE}\t\n]")
SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
"""Stands in JSON for half of a surrogate pair, which is no text."""


def printable(text: str) -> str:
    """`text` with its control characters as escapes, except for tabs and line feeds."""
    return text if text.isprintable() else IN_TEXT.sub(_escape, text)


def one_line(text: str) -> str:
    """`text` with all its control characters as escapes."""
    return text if text.isprintable() else IN_LINE.sub(_escape, text)


def strict_json(document: Any, *, default: Callable[[Any], Any] | None = None, indent: int | None = None) -> str:
    """`document` as JSON that every parser reads: null for NaN and infinities, and text that is Unicode.

    `default` replaces objects that JSON lacks.
    """
    return json.dumps(_strict(document), default=default, indent=indent, allow_nan=False)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _strict(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value if value.isascii() else SURROGATE.sub(REPLACEMENT, value)
        case dict():
            return {_strict(key) if isinstance(key, str) else key: _strict(each) for key, each in value.items()}
        case list() | tuple():
            return [_strict(each) for each in value]
    return value
