"""Windows: the ranges of chunks that are read at once, between blocks, and requests for them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from headway.checkpoint.manifest import BLOCK_BYTES, Chunk

WINDOW_BYTES = 4 * BLOCK_BYTES
"""Maximum bytes of one read."""


@dataclass(frozen=True)
class ReadRequest:
    """A request for a byte range of a chunk."""

    chunk: Chunk
    start: int
    stop: int
    on_data: Callable[[int, memoryview], None]
    """Called for each window: its offset in the range, and its bytes. May be called from several threads."""


@dataclass(frozen=True)
class ReadWindow:
    """A byte range of a chunk, and the whole blocks around it, which are the unit of verification."""

    chunk: Chunk
    start: int
    stop: int

    @property
    def block_start(self) -> int:
        """First byte of the first block."""
        return self.start // BLOCK_BYTES * BLOCK_BYTES

    @property
    def block_stop(self) -> int:
        """End of the last block."""
        return min(-(-self.stop // BLOCK_BYTES) * BLOCK_BYTES, self.chunk.length)


def windows(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Split bytes `start` to `stop` into ranges of at most `WINDOW_BYTES`, between blocks."""
    while start < stop:
        end = min(stop, (start // BLOCK_BYTES) * BLOCK_BYTES + WINDOW_BYTES)
        yield start, end
        start = end


def coalesce(parts: Iterable[tuple[ReadWindow, ReadRequest]]) -> Iterator[list[tuple[ReadWindow, ReadRequest]]]:
    """Group windows that are adjacent in a shard, up to `WINDOW_BYTES` per group.

    A model has many small tensors, and a store serves a few large requests far faster than hundreds of small ones.
    """

    def position(part: tuple[ReadWindow, ReadRequest]) -> tuple[int, int]:
        return part[0].chunk.shard, part[0].chunk.start + part[0].block_start

    group: list[tuple[ReadWindow, ReadRequest]] = []
    shard = base = end = -1
    for part in sorted(parts, key=position):
        window = part[0]
        start, stop = window.chunk.start + window.block_start, window.chunk.start + window.block_stop
        if group and (window.chunk.shard, start) == (shard, end) and stop - base <= WINDOW_BYTES:
            group.append(part)
        else:
            if group:
                yield group
            group, shard, base = [part], window.chunk.shard, start
        end = stop
    if group:
        yield group
