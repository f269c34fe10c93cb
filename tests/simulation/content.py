"""What the simulated checkpoints hold: bytes that only their own attempt would write at their own position."""

import hashlib

from headway.checkpoint.shard import Piece

NAME = "model.weight"
ROWS = 6
"""Of the one tensor; 1, 2 and 3 ranks share them evenly."""
WIDTH = 4
"""Bytes of a row."""


def content(tokens: int, attempt: int) -> bytes:
    """The whole tensor as `attempt` has it at `tokens`."""
    return hashlib.blake2b(f"{tokens} of {attempt}".encode(), digest_size=ROWS * WIDTH).digest()


def pieces(tokens: int, attempt: int, rank: int, ranks: int) -> list[Piece]:
    """What one rank holds of it."""
    rows = ROWS // ranks
    data = content(tokens, attempt)[rank * rows * WIDTH : (rank + 1) * rows * WIDTH]
    return [Piece(NAME, "float32", (ROWS,), (rank * rows,), (rows,), memoryview(data))]
