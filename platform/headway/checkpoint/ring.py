"""A few fixed buffers through which a rank's bytes come from its device into host memory, hashed as they pass.

A device copies fast only into pinned memory, and pinned memory is what a host has least of. So it copies into a ring of
pinned buffers, and a few hands empty them into ordinary memory while the next ones fill: nobody waits for anybody as
long as a buffer is free.
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
"""Some blocks of checksums: long enough for a link's full speed. A power of two, for torch rounds pinned memory up."""
HANDS = 4
"""Threads that empty buffers: a core copies and hashes about a quarter of what a link of PCIe 5.0 brings."""
BUFFERS = 2 * HANDS
"""Number of buffers, one filling for each one emptied: 128 MiB of pinned memory, 1 GiB for eight ranks on a host."""


class Route(Protocol):
    """The way from a device into host memory: all that a ring needs to know of the device."""

    pinned: bool
    """Whether the buffers have to be."""

    def follow(self) -> None:
        """From now on copy what the training has computed up to here; on the training thread."""

    def own(self) -> AbstractContextManager[Any]:
        """Inside, whatever is computed on the device comes after the moment that is copied."""

    def send(self, source: torch.Tensor, buffer: torch.Tensor) -> None:
        """Begin to copy bytes of the device into a buffer."""

    def mark(self) -> Callable[[], None]:
        """What waits until all that was sent so far has arrived."""


class CudaRoute:
    """A stream of its own on one GPU. Made on the training thread, which knows which GPU that is."""

    pinned = True

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def follow(self) -> None:
        """Wait, on the device, for what the training stream was given so far."""
        self.stream.wait_stream(torch.cuda.current_stream())

    def own(self) -> AbstractContextManager[Any]:
        """Have this thread compute on the stream."""
        return torch.cuda.stream(self.stream)

    def send(self, source: torch.Tensor, buffer: torch.Tensor) -> None:
        """Begin to copy."""
        buffer.copy_(source, non_blocking=True)

    def mark(self) -> Callable[[], None]:
        """What sleeps until the copies are there: to spin would take a core from the training."""
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self.stream)
        wait_for: Callable[[], None] = event.synchronize
        return wait_for


@dataclass(frozen=True)
class Stretch:
    """Whole blocks of a piece that go through one buffer together."""

    source: torch.Tensor
    """Bytes on the device."""
    target: Bytes
    """Where they belong."""
    sums: list[str]
    """Checksums of all blocks of the piece."""
    first: int
    """The stretch's first block."""


class Ring:
    """Fixed buffers and the hands that empty them. Used by one thread."""

    def __init__(self, route: Route, buffers: int = BUFFERS, size: int = BUFFER_BYTES) -> None:
        """Take `buffers` times `size` bytes of memory, for good."""
        self.route, self.size = route, size
        self._free: SimpleQueue[torch.Tensor] = SimpleQueue()
        memory = torch.empty(buffers * size, dtype=torch.uint8, pin_memory=route.pinned)
        for at in range(0, memory.nbytes, size):
            self._free.put(memory[at : at + size])
        self._hands = ThreadPoolExecutor(HANDS, thread_name_prefix="checkpoint-hand")

    def bring(self, pieces: Iterable[tuple[torch.Tensor, Bytes]], taken: Callable[[], None]) -> list[tuple[str, ...]]:
        """Bring the bytes of each piece from the device to where they belong; returns the checksums of its blocks.

        `taken` is called when the device's bytes may change, which is before the last ones are where they belong.
        """
        sums: list[list[str]] = []
        emptied: list[Future[None]] = []
        try:
            for load in _loads(pieces, self.size, sums):
                buffer = self._free.get()
                try:
                    arrived = self._fill(buffer, load)
                    emptied.append(self._hands.submit(self._empty, buffer, load, arrived))
                except BaseException:
                    self._free.put(buffer)
                    raise
            self.route.mark()()
            taken()
        finally:
            wait(emptied)
        for each in emptied:
            each.result()
        return [tuple(each) for each in sums]

    def close(self) -> None:
        """Let go of the hands, once they have nothing to do any more."""
        self._hands.shutdown(wait=False)

    def _fill(self, buffer: torch.Tensor, load: list[Stretch]) -> Callable[[], None]:
        at = 0
        for stretch in load:
            self.route.send(stretch.source, buffer[at : at + stretch.target.nbytes])
            at += stretch.target.nbytes
        return self.route.mark()

    def _empty(self, buffer: torch.Tensor, load: list[Stretch], arrived: Callable[[], None]) -> None:
        """Move what has arrived in a buffer to where it belongs; on one of the hands."""
        try:
            arrived()
            held: Bytes = buffer.numpy()
            for stretch in load:
                found = copy_and_sum(held[: stretch.target.nbytes], stretch.target)
                stretch.sums[stretch.first : stretch.first + len(found)] = found
                held = held[stretch.target.nbytes :]
        finally:
            self._free.put(buffer)


def copy_and_sum(source: Bytes, target: Bytes) -> tuple[str, ...]:
    """Copy bytes, and return the checksums of their blocks, each computed while it is in the cache."""
    sums = []
    for at in range(0, source.nbytes, manifest.BLOCK_BYTES):
        block = target[at : at + manifest.BLOCK_BYTES]
        np.copyto(block, source[at : at + manifest.BLOCK_BYTES])
        sums.append(manifest.checksum([block.data]))
    return tuple(sums)


def _loads(pieces: Iterable[tuple[torch.Tensor, Bytes]], size: int, sums: list[list[str]]) -> Iterator[list[Stretch]]:
    """What goes into each buffer of `size` bytes: as much as fits, cut between blocks; makes room in `sums`."""
    load: list[Stretch] = []
    room = size
    for source, target in pieces:
        sums.append([""] * -(-target.nbytes // manifest.BLOCK_BYTES))
        at = 0
        while at < target.nbytes:
            left = target.nbytes - at
            fits = left if left <= room else room - room % manifest.BLOCK_BYTES
            if fits:
                load.append(
                    Stretch(source[at : at + fits], target[at : at + fits], sums[-1], at // manifest.BLOCK_BYTES)
                )
                at, room = at + fits, room - fits
            if at < target.nbytes:
                yield load
                load, room = [], size
    if load:
        yield load
