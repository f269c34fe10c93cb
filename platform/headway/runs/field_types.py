"""Types of the fields of what a run store holds. Each has bounds, so any value can be computed with and printed."""

import math
from typing import Annotated

from pydantic import BeforeValidator, Field

from headway.runs.keys import MAX_NUMBER, MAX_TOKENS

MAX_LINE = 1000
"""Longest name of a host, a job or a phase, and longest digest [characters]."""
MAX_TEXT = 10_000
"""Longest reason and longest message [characters]. What is longer is cut."""


def _printable(text: object) -> object:
    """A text cut to `MAX_TEXT`, and with `?` for what UTF-8 cannot hold: half a surrogate pair, as of a file's name."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode() if isinstance(text, str) else text


def _finite(number: object) -> object:
    return None if isinstance(number, float) and not math.isfinite(number) else number


Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
"""A position or a number of tokens."""
Number = Annotated[int, Field(ge=1, le=MAX_NUMBER)]
"""Number of an entry or of an attempt."""
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Number of things: attempts, restarts, ranks."""
ByteCount = Annotated[int, Field(ge=0, le=2**63 - 1)]
Moment = Annotated[float, Field(ge=0, le=253_402_300_799, allow_inf_nan=False)]
"""A time [s since 1970], up to the year 9999: what `datetime` holds."""
Seconds = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
"""A duration [s]; below 0 only where clocks disagree."""
Loss = Annotated[float | None, BeforeValidator(_finite)]
"""A loss [nats per token]; None for one that is missing or not finite, which JSON cannot hold."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
"""A SHA-256, in hex."""
Line = Annotated[str, Field(max_length=MAX_LINE)]
"""A short text that is compared or printed, and never part of a key."""
JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}\z")]
"""SLURM job id. It is an argument of SLURM's commands, so it is never an option."""
Text = Annotated[str, BeforeValidator(_printable)]
"""A reason or a message."""
