"""A checkpoint in the store: opened from its journal entry, every read of it verified."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headway.checkpoint.manifest import BLOCK_BYTES, WIDTHS, CheckpointManifest, Chunk, Shard, checksum, decode
from headway.errors import DamageError, MissingObject
from headway.objectstore import Store
from headway.runs import Committed

PARAMETERS = "model."
"""Prefix of the names of parameters, as against the optimizer's state."""
READERS = 4
"""Reads that are on their way side by side."""
WINDOW_BYTES = 4 * BLOCK_BYTES
"""The most that one of them holds in memory."""


@dataclass(frozen=True)
class ReadRequest:
    """A byte range of a chunk, and who takes it: told where in the range a window begins, and its bytes."""

    chunk: Chunk
    start: int
    stop: int
    take: Callable[[int, memoryview], None]


@dataclass(frozen=True)
class ReadWindow:
    """A byte range of a chunk, and the whole blocks around it, which are what can be checked."""

    chunk: Chunk
    start: int
    stop: int

    @property
    def low(self) -> int:
        """First byte of the first block."""
        return self.start // BLOCK_BYTES * BLOCK_BYTES

    @property
    def high(self) -> int:
        """End of the last block."""
        return min(-(-self.stop // BLOCK_BYTES) * BLOCK_BYTES, self.chunk.length)


class StoredCheckpoint:
    """A committed checkpoint."""

    def __init__(self, store: Store, commit: Committed) -> None:
        self.store, self.commit = store, commit

    @cached_property
    def manifest(self) -> CheckpointManifest:
        """The manifest, if its bytes are those that were committed.

        Raises:
            DamageError: they are not, or it is missing.
        """
        key = self.commit.manifest
        try:
            data = self.store.get(key)
        except MissingObject as error:
            raise DamageError(f"{key}: missing") from error
        if hashlib.sha256(data).hexdigest() != self.commit.sha256:
            raise DamageError(f"{key}: is not the manifest that was committed")
        return decode(data, key)

    def read(self, chunk: Chunk, start: int, stop: int) -> memoryview:
        """Bytes `start` to `stop` of a chunk; whole blocks are read, and each is checked.

        Raises:
            DamageError: they are not those that were written.
        """
        window = ReadWindow(chunk, start, stop)
        data = self._bytes(self.manifest.shards[chunk.shard].key, chunk.start + window.low, window.high - window.low)
        return self._checked(window, data)

    def shard(self, index: int) -> Iterator[memoryview]:
        """The bytes of a shard in their order, checked as they are read.

        Raises:
            DamageError: they are not those that were written.
        """
        shard = self.manifest.shards[index]
        self.check_frame(shard)
        yield self._bytes(shard.key, 0, shard.header_bytes)
        chunks = [c for tensor in self.manifest.tensors.values() for c in tensor.chunks if c.shard == index]
        for chunk in sorted(chunks, key=lambda chunk: chunk.start):
            for window in windows(0, chunk.length):
                yield self.read(chunk, *window)

    def stream(self, wanted: Iterable[ReadRequest]) -> None:
        """Read byte ranges of chunks side by side, in windows, and hand each window to whoever wanted it.

        What lies side by side in a shard is read at once.

        Raises:
            DamageError: something is not what was written; some windows were handed over by then, some not.
        """

        def bring(group: Sequence[tuple[ReadWindow, ReadRequest]]) -> None:
            (first, _), (last, _) = group[0], group[-1]
            base = first.chunk.start + first.low
            end = last.chunk.start + last.high
            data = self._bytes(self.manifest.shards[first.chunk.shard].key, base, end - base)
            for window, each in group:
                at = window.chunk.start - base
                each.take(window.start - each.start, self._checked(window, data[at + window.low : at + window.high]))

        parts = [(ReadWindow(each.chunk, *part), each) for each in wanted for part in windows(each.start, each.stop)]
        with ThreadPoolExecutor(READERS, thread_name_prefix="restore") as readers:
            on_the_way = [readers.submit(bring, group) for group in coalesce(parts)]
            try:
                for group in on_the_way:
                    group.result()
            finally:
                readers.shutdown(cancel_futures=True)

    def tensor(self, name: str) -> npt.NDArray[np.void]:
        """A whole tensor, as raw elements: the caller knows its type from the manifest."""
        tensor = self.manifest.tensors[name]
        element = np.dtype(f"V{WIDTHS[tensor.dtype]}")
        whole = np.empty(tensor.shape, element)
        places = [whole[tuple(slice(o, o + s) for o, s in zip(c.offset, c.size, strict=True))] for c in tensor.chunks]
        pieces = [place if place.flags.c_contiguous else np.empty(place.shape, element) for place in places]

        def into(piece: npt.NDArray[np.void]) -> Callable[[int, memoryview], None]:
            flat = piece.reshape(-1).view(np.uint8)

            def take(at: int, data: memoryview) -> None:
                flat[at : at + data.nbytes] = data

            return take

        self.stream(ReadRequest(c, 0, c.length, into(piece)) for c, piece in zip(tensor.chunks, pieces, strict=True))
        for place, piece in zip(places, pieces, strict=True):
            if piece is not place:
                place[...] = piece
        return whole

    def fingerprint(self) -> str:
        """SHA-256 over the parameters: sorted names, full tensors as stored. Equal for equal runs."""
        digest = hashlib.sha256()
        for name in sorted(name for name in self.manifest.tensors if name.startswith(PARAMETERS)):
            tensor = self.manifest.tensors[name]
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(self.tensor(name).tobytes())
        return digest.hexdigest()

    def damage(self) -> Iterator[DamageError | int]:
        """Read the checkpoint whole; yields each finding, and between them the bytes that were read."""
        try:
            manifest = self.manifest
        except DamageError as error:
            yield error
            return
        for shard in manifest.shards:
            try:
                self.check_frame(shard)
            except DamageError as error:
                yield error
        chunks = sorted(
            ((name, chunk) for name, tensor in manifest.tensors.items() for chunk in tensor.chunks),
            key=lambda named: (named[1].shard, named[1].start),
        )
        jobs = [(*named, window) for named in chunks for window in windows(0, named[1].length)]
        with ThreadPoolExecutor(READERS) as readers:
            for found, (_, _, window) in zip(readers.map(self._look, jobs), jobs, strict=True):
                if found:
                    yield found
                yield window[1] - window[0]

    def check_frame(self, shard: Shard) -> None:
        """See that a shard has its length and its header; its tensors are checked as they are read.

        Raises:
            DamageError: it has not.
        """
        if checksum([self._bytes(shard.key, 0, shard.header_bytes)]) != shard.checksum:
            raise DamageError(f"{shard.key}: its header is not the one that was written")
        if (size := self.store.size(shard.key)) != shard.bytes:
            raise DamageError(f"{shard.key}: is {size:,} bytes long; {shard.bytes:,} were written")

    def complete(self) -> bool:
        """Whether manifest and shards are there at their full length: a cheap look that reads no tensor."""
        try:
            return all(self.store.size(shard.key) == shard.bytes for shard in self.manifest.shards)
        except (DamageError, MissingObject):
            return False

    def _look(self, job: tuple[str, Chunk, tuple[int, int]]) -> DamageError | None:
        name, chunk, window = job
        try:
            self.read(chunk, *window)
        except DamageError as error:
            return DamageError(f"{error} (tensor {name})")
        return None

    def _checked(self, window: ReadWindow, data: memoryview) -> memoryview:
        """The bytes that `window` is about, out of the whole blocks around it, each of which is checked."""
        chunk = window.chunk
        for at in range(window.low, window.high, BLOCK_BYTES):
            block = data[at - window.low : at - window.low + BLOCK_BYTES]
            if checksum([block]) != chunk.checksums[at // BLOCK_BYTES]:
                start = chunk.start + at
                raise DamageError(
                    f"{self.manifest.shards[chunk.shard].key}: bytes {start:,} to {start + block.nbytes:,} "
                    f"are not those that were written"
                )
        return data[window.start - window.low : window.stop - window.low]

    def _bytes(self, key: str, start: int, length: int) -> memoryview:
        buffer = memoryview(bytearray(length))
        try:
            there = self.store.fill(key, buffer, start)
        except MissingObject as error:
            raise DamageError(f"{key}: missing") from error
        if there < length:
            raise DamageError(f"{key}: ends after {start + there:,} bytes, before byte {start + length:,}")
        return buffer


def windows(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Bytes `start` to `stop` in pieces to read at once, cut between blocks."""
    while start < stop:
        end = min(stop, (start // BLOCK_BYTES) * BLOCK_BYTES + WINDOW_BYTES)
        yield start, end
        start = end


def coalesce(parts: Iterable[tuple[ReadWindow, ReadRequest]]) -> Iterator[list[tuple[ReadWindow, ReadRequest]]]:
    """Those that follow one another in a shard, in one list as long as they are not too large to read at once.

    A model has many small tensors, and a store answers hundreds of small requests far slower than a few large ones.
    """

    def place(part: tuple[ReadWindow, ReadRequest]) -> tuple[int, int]:
        return part[0].chunk.shard, part[0].chunk.start + part[0].low

    group: list[tuple[ReadWindow, ReadRequest]] = []
    shard = base = end = -1
    for part in sorted(parts, key=place):
        window = part[0]
        start, stop = window.chunk.start + window.low, window.chunk.start + window.high
        if group and (window.chunk.shard, start) == (shard, end) and stop - base <= WINDOW_BYTES:
            group.append(part)
        else:
            if group:
                yield group
            group, shard, base = [part], window.chunk.shard, start
        end = stop
    if group:
        yield group
