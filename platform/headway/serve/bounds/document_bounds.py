"""Bounds of a JSON document as a whole: its depth, its values, and numbers that no engine can hold."""

import math
from typing import Any

MAX_DEPTH = 64
"""Objects and lists in each other: deeper than any schema that people write; libraries recurse over them."""
MAX_VALUES = 2**15
"""JSON values of a document; a list of integers counts as one. Python needs about 100 bytes and 1 us for each."""
MAX_INTEGERS = 2**18
"""Integers in a list: twice as many token ids as the longest context of the models that a replica serves has."""
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def document_problem(document: Any) -> str | None:
    """What exceeds a bound first, as the end of a sentence that begins with the document; None if nothing does."""
    count, pending = 1, [(document, 1)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, list) and set(map(type, value)) == {int}:
            problem = _integers_problem(value)
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


def _integers_problem(integers: list[int]) -> str | None:
    """What is wrong with a list of integers."""
    if len(integers) > MAX_INTEGERS:
        return f"has a list of more than {MAX_INTEGERS} integers"
    return _number_problem(min(integers)) or _number_problem(max(integers))


def _number_problem(value: Any) -> str | None:
    """What is wrong with a number; anything else is right."""
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return "holds a number that does not fit into 64 bits"
    return "holds a number that is not finite" if isinstance(value, float) and not math.isfinite(value) else None
