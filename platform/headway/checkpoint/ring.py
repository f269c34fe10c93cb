"""A ring of pinned buffers through which a rank's state moves from its device to host memory, hashed on the way.

A device copies fast only to pinned memory, which is scarce. So it copies into a ring of pinned buffers, and a few
threads drain them into ordinary memory while the next ones fill. No side waits as long as a buffer is free.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from headway.checkpoint import manifest

Bytes = NDArray[np.uint8]
BUFFER_BYTES = 16 << 20
"""Size of a buffer: several checksum blocks, enough for full bandwidth. torch pins memory in powers of two."""
DRAIN_THREADS = 4
"""Threads that drain buffers: one core copies and hashes at about a quarter of the bandwidth of PCIe 5.0."""
BUFFERS = 2 * DRAIN_THREADS
"""Number of buffers, one filling for each one draining: 128 MiB of pinned memory, 1 GiB for eight ranks on a host."""


class CopyStream(Protocol):
    """Asynchronous copies from a device to host memory: all that a ring needs to know of the device."""

    pinned: bool
    """Whether the buffers must be pinned."""

    def sync_with_training(self) -> None:
        """Make later copies wait for the work that training has submitted so far. Called on the training thread."""

    def activate(self) -> AbstractContextManager[Any]:
        """Run the device operations of the block on this stream."""

    def copy(self, source: torch.Tensor, buffer: torch.Tensor) -> None:
        """Start to copy device bytes to a buffer."""

    def record(self) -> Callable[[], None]:
        """A function that waits for the copies started so far."""


class CudaCopyStream:
    """A CUDA stream for copies. Create it on the training thread, where the current device is the rank's."""

    pinned = True

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def sync_with_training(self) -> None:
        """Make the stream wait for the training stream; the host does not wait."""
        self.stream.wait_stream(torch.cuda.current_stream())

    def activate(self) -> AbstractContextManager[Any]:
        """Make this the current stream during the block."""
        return torch.cuda.stream(self.stream)

    def copy(self, source: torch.Tensor, buffer: torch.Tensor) -> None:
        """Start to copy device bytes to a buffer."""
        buffer.copy_(source, non_blocking=True)

    def record(self) -> Callable[[], None]:
        """A function that waits for the copies started so far. It sleeps; spinning would take a core from training."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self.stream)
        wait_for: Callable[[], None] = event.synchronize
        return wait_for


@dataclass(frozen=True)
class BlockRange:
    """Consecutive blocks of a piece that share one pass through a buffer."""

    source: torch.Tensor
    """Bytes on the device."""
    target: Bytes
    """Destination in host memory."""
    checksums: list[str]
    """Checksums of all blocks of the piece, to be filled in."""
    first: int
    """Index of the first block."""


class Ring:
    """Fixed buffers and the threads that drain them. Use it from one thread."""

    def __init__(self, stream: CopyStream, buffers: int = BUFFERS, size: int = BUFFER_BYTES) -> None:
        """Allocate `buffers` times `size` bytes, for the life of the ring."""
        self.stream, self.size = stream, size
        self._free: SimpleQueue[torch.Tensor] = SimpleQueue()
        memory = torch.empty(buffers * size, dtype=torch.uint8, pin_memory=stream.pinned)
        for start in range(0, memory.nbytes, size):
            self._free.put(memory[start : start + size])
        self._drain_pool = ThreadPoolExecutor(DRAIN_THREADS, thread_name_prefix="checkpoint-drain")

    def copy(self, pieces: Iterable[tuple[torch.Tensor, Bytes]], on_read: Callable[[], None]) -> list[tuple[str, ...]]:
        """Copy each piece from the device to its destination; returns the checksums of its blocks.

        Calls `on_read` as soon as the device's bytes may change, before the last buffers are drained.
        """
        checksums: list[list[str]] = []
        drains: list[Future[None]] = []
        try:
            for ranges in _fills(pieces, self.size, checksums):
                buffer = self._free.get()
                try:
                    wait_for_fill = self._fill(buffer, ranges)
                    drains.append(self._drain_pool.submit(self._drain, buffer, ranges, wait_for_fill))
                except BaseException:
                    self._free.put(buffer)
                    raise
            self.stream.record()()
            on_read()
        finally:
            wait(drains)
        for drain in drains:
            drain.result()
        return [tuple(each) for each in checksums]

    def close(self) -> None:
        """Let the threads end after their last task."""
        self._drain_pool.shutdown(wait=False)

    def _fill(self, buffer: torch.Tensor, ranges: list[BlockRange]) -> Callable[[], None]:
        """Start to fill a buffer; returns a function that waits until it is full."""
        start = 0
        for each in ranges:
            self.stream.copy(each.source, buffer[start : start + each.target.nbytes])
            start += each.target.nbytes
        return self.stream.record()

    def _drain(self, buffer: torch.Tensor, ranges: list[BlockRange], wait_for_fill: Callable[[], None]) -> None:
        """Move the bytes of a buffer to their destinations; runs in the pool."""
        try:
            wait_for_fill()
            rest: Bytes = buffer.numpy()
            for each in ranges:
                sums = copy_with_checksums(rest[: each.target.nbytes], each.target)
                each.checksums[each.first : each.first + len(sums)] = sums
                rest = rest[each.target.nbytes :]
        finally:
            self._free.put(buffer)


def copy_with_checksums(source: Bytes, target: Bytes) -> tuple[str, ...]:
    """Copy bytes; returns the checksums of their blocks, each computed while the block is in the CPU cache."""
    checksums = []
    for start in range(0, source.nbytes, manifest.BLOCK_BYTES):
        block = target[start : start + manifest.BLOCK_BYTES]
        np.copyto(block, source[start : start + manifest.BLOCK_BYTES])
        checksums.append(manifest.checksum([block.data]))
    return tuple(checksums)


def _fills(
    pieces: Iterable[tuple[torch.Tensor, Bytes]], size: int, checksums: list[list[str]]
) -> Iterator[list[BlockRange]]:
    """Plan the content of each buffer of `size` bytes: as much as fits, cut between blocks.

    Appends to `checksums` a list for each piece, with an empty entry for each block.
    """
    ranges: list[BlockRange] = []
    room = size
    for source, target in pieces:
        checksums.append([""] * -(-target.nbytes // manifest.BLOCK_BYTES))
        start = 0
        while start < target.nbytes:
            rest = target.nbytes - start
            fits = rest if rest <= room else room - room % manifest.BLOCK_BYTES
            if fits:
                stop = start + fits
                ranges.append(
                    BlockRange(source[start:stop], target[start:stop], checksums[-1], start // manifest.BLOCK_BYTES)
                )
                start, room = stop, room - fits
            if start < target.nbytes:
                yield ranges
                ranges, room = [], size
    if ranges:
        yield ranges
