"""Contents of simulated checkpoints, unique to an attempt and a position."""

import hashlib

from headway.checkpoint.shard import Piece

NAME = "model.weight"
ROWS = 6
"""Rows of the tensor; 1, 2 and 3 ranks share them evenly."""
WIDTH = 4
"""Bytes per row."""


def content(tokens: int, attempt: int) -> bytes:
    """Bytes of the whole tensor of `attempt` at `tokens`."""
    return hashlib.blake2b(f"{tokens} of {attempt}".encode(), digest_size=ROWS * WIDTH).digest()


def pieces(tokens: int, attempt: int, rank: int, ranks: int) -> list[Piece]:
    """The rows of one rank."""
    rows = ROWS // ranks
    data = content(tokens, attempt)[rank * rows * WIDTH : (rank + 1) * rows * WIDTH]
    return [Piece(NAME, "float32", (ROWS,), (rank * rows,), (rows,), memoryview(data))]
