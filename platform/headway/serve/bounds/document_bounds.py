"""Bounds of a JSON document as a whole: its depth, its values, and numbers that no engine can hold."""

import math
from typing import Any

MAX_DEPTH = 64
"""Objects and lists in each other: deeper than any schema that people write; libraries recurse over them."""
MAX_VALUES = 2**15
"""JSON values of a document; a list of integers counts as one. Python needs about 100 bytes and 1 us for each."""
MAX_INTEGERS = 2**18
"""Integers in all lists of integers: twice as many token ids as the longest context of the models of a replica has."""
MAX_MARKS = 2 * MAX_VALUES + MAX_INTEGERS
"""Commas and opening brackets: one for each entry of a list or an object, and one for each that is empty."""
MAX_QUOTES = 4 * MAX_VALUES
"""Quotation marks: those of each value and of its key."""
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def text_problem(text: bytes) -> str | None:
    """What exceeds a bound in the JSON text of a document, as `document_problem` says it; None if nothing does.

    It counts what stands between the texts in it, without parsing them: 4 MiB of `[],[],` take the parser a quarter of
    a second and 90 MiB, and take this function 20 ms.
    """
    unescaped = text.replace(rb"\\", b"").replace(rb"\"", b"")
    if unescaped.count(b'"') > MAX_QUOTES:
        return f"has more than {MAX_VALUES} values"
    marks = b"".join(unescaped.split(b'"')[::2])
    if marks.count(b",") + marks.count(b"[") + marks.count(b"{") > MAX_MARKS:
        return f"has more than {MAX_VALUES} values, or {MAX_INTEGERS} integers in its lists"
    return None


def document_problem(document: Any) -> str | None:
    """What exceeds a bound first, as the end of a sentence that begins with the document; None if nothing does."""
    count, integers, pending = 1, 0, [(document, 1)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, list) and set(map(type, value)) == {int}:
            integers += len(value)
            problem = f"has more than {MAX_INTEGERS} integers in its lists" if integers > MAX_INTEGERS else None
            problem = problem or _number_problem(min(value)) or _number_problem(max(value))
        elif isinstance(value, (dict, list)):
            count += len(value)
            problem = f"has more than {MAX_VALUES} values" if count > MAX_VALUES else None
            items = value.values() if isinstance(value, dict) else value
            pending.extend((item, depth + 1) for item in (() if problem else items))
        else:
            problem = _number_problem(value)
        if isinstance(value, (dict, list)) and depth > MAX_DEPTH:
            problem = f"has objects and lists more than {MAX_DEPTH} deep in each other"
        if problem:
            return problem
    return None


def _number_problem(value: Any) -> str | None:
    """What is wrong with a number; anything else is right."""
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return "holds a number that does not fit into 64 bits"
    return "holds a number that is not finite" if isinstance(value, float) and not math.isfinite(value) else None
