"""JSON of anybody is read within bounds, and what is beyond them is one kind of error."""

import json
import math

import pytest

from headway.strict_json import parse


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" * 300 + b"]" * 300,
        b"9" * 5000,
        b"[" + b"0," * 2**20 + b"0]",
        b"[" + b"[]," * 2**20 + b"0]",
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b"\xff",
        b"[1] x",
        b"NaN",
        b"-Infinity",
        b"\0" * 100,
        b"",
    ],
)
def test_what_is_beyond_a_bound_is_a_value_error(data: bytes) -> None:
    """Depth, digits, density, surrogates, NaN: never another exception, never a crash."""
    with pytest.raises(ValueError, match=r".+"):
        parse(data)


def test_what_headway_writes_is_read_back() -> None:
    """Every float has the bits it had, and NaN is read where it may be."""
    values = {"a": [0.1, 1e-310, 2.0**-1074, -0.0, 1e22, 2**63], "b": {"c": None, "d": True, "ä\n": "\u2028"}}
    assert parse(json.dumps(values, indent=1).encode()) == values
    assert math.isnan(parse(b"NaN", nan=True))
    assert parse(b"[" * 100 + b"]" * 100)
    assert len(parse(json.dumps(["0" * 32] * 200_000).encode())) == 200_000
