"""Values that no writer of Headway would store, and values that are nearly right."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DEEP, LONG = "@deep@", "@long@"
"""Stand for a list of 50,000 levels and a number of 5,000 digits, which Python's own encoder cannot write."""
TEXT = {f'"{DEEP}"': "[" * 50_000 + "]" * 50_000, f'"{LONG}"': "9" * 5000}
"""What is stored in the place of each."""
MISSING = object()
"""Stands for a field that is left out."""


SHAPES: tuple[Any, ...] = (MISSING, None, True, [], {}, "", [None], {"a": 1}, [[]] * 1000)
NUMBERS = (
    *(-1, 0, 1, 10**8, 2**31, 2**63, 10**12, 10**30, 10**400, 50_000_000_000, -(10**15), LONG),
    *(0.5, 1e300, -1e300, math.nan, math.inf, -math.inf, 1_700_000_000_000),
)
TEXTS = (
    *("a\0b", "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "[bold]x[/]", "cannot open [/data/x]", "[/]", ":smile:"),
    *("\ud800", "\u202egnp.exe", "\n\r\n", "x" * 300_000, "--all", "; touch owned", "NaN", "²²²", "é" * 100),
    *("0" * 64, "f" * 64, "0" * 64 + "\n", "A" * 64),
)


def hostile(draw: random.Random, home: Path, was: Any, store: Sequence[str]) -> Any:
    """A value that most often has the type of the one that it replaces.

    Places are those of the victim, and those of the `store`, which others may not name.
    """
    places = (
        *("../../home", "../../home/notes.json", "/etc/passwd", "/dev/zero", ".", "..", "/", "good", "precious"),
        *(str(home), str(home / "notes.json"), f"file://{home}", home.name, str(home / "checkpoints")),
    )
    if draw.random() < 0.06:
        return DEEP
    groups = [SHAPES, NUMBERS, TEXTS, places, store]
    if draw.random() < 0.7:
        groups = (
            [NUMBERS] if isinstance(was, int | float) else [TEXTS, places, store] if isinstance(was, str) else groups
        )
    return draw.choice(draw.choice(groups))


def nearly(draw: random.Random, value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return draw.choice([value + 1, value - 1, value * 1000, -value, value * 10**9, value + 0.5])
        case str():
            return draw.choice(
                [value + "x", value[:-1], value.replace("/", "/../") + "/", value + " ", value[::-1] + "-"]
            )
        case list():
            return draw.choice([value * 2, value[:-1], value * 1000 if len(value) < 100 else [], value[::-1]])
        case dict():
            return draw.choice([{**value, "extra": 1}, dict(list(value.items())[:-1])])
    return draw.choice([0, "x"])
