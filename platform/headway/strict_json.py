"""Reads JSON that anybody may have written.

Depth, digits and density are bounded: what is nested deeper than 200 levels, has a number of more than 4,300 digits, or
holds more values than documents of its length do, is an error and never a crash. So are text that is no UTF-8, half a
surrogate pair, and NaN unless the caller allows it. Of equal keys the last counts, for every reader.
"""

from typing import Any

from pydantic_core import from_json

DENSE_VALUES = 100_000
"""Values that any document may hold."""
BYTES_PER_VALUE = 8
"""Least bytes per value in a document with more values: a Python object takes ten times as many."""


def parse(data: bytes, *, nan: bool = False) -> Any:
    """The value of a JSON document; `nan` also allows NaN and infinities, as Python writes them.

    Memory is up to 20 times the length of `data`, so bound that first.

    Raises:
        ValueError: it is no JSON, or outside of the bounds.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > max(DENSE_VALUES, len(data) // BYTES_PER_VALUE):
        raise ValueError("holds more values than a document of its length does")
    return from_json(data, allow_inf_nan=nan)
