"""Reads a committed checkpoint from the store, and verifies every byte that it returns."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from headway.checkpoint.manifest import (
    BLOCK_BYTES,
    MANIFEST_BYTES,
    WIDTHS,
    CheckpointManifest,
    Chunk,
    Shard,
    checksum,
)
from headway.checkpoint.read_window import ReadRequest, ReadWindow, coalesce, windows
from headway.errors import DamageError, MissingObject
from headway.objectstore import Store, read_document
from headway.runs import Committed, keys
from headway.runs.keys import CheckpointKey

PARAMETER_PREFIX = "model."
"""Prefix of the names of parameters, as opposed to optimizer state."""
READERS = 4
"""Number of reads in parallel."""


class StoredCheckpoint:
    """A committed checkpoint in a store."""

    def __init__(self, store: Store, commit: Committed) -> None:
        self.store, self.commit = store, commit
        self._measured: set[int] = set()
        """Shards whose lengths were checked."""
        self._manifest: CheckpointManifest | None = None

    @property
    def manifest_bytes(self) -> bytes:
        """The manifest as it was committed.

        Raises:
            DamageError: it is missing or was changed.
        """
        key = self.commit.manifest
        try:
            data = read_document(self.store, key, MANIFEST_BYTES)
        except MissingObject as error:
            raise DamageError(f"{key}: missing") from error
        if hashlib.sha256(data).hexdigest() != self.commit.sha256:
            raise DamageError(f"{key}: is not the manifest that was committed")
        return data

    @property
    def manifest(self) -> CheckpointManifest:
        """The verified manifest, read once.

        Raises:
            DamageError: it is missing, not the manifest that was committed, or not about this checkpoint alone.
        """
        if self._manifest is None:
            self._manifest = self._read_manifest()
        return self._manifest

    def read(self, chunk: Chunk, start: int, stop: int) -> memoryview:
        """Read bytes `start` to `stop` of a chunk; reads and verifies whole blocks.

        Raises:
            DamageError: a block is missing or damaged.
        """
        window = ReadWindow(chunk, start, stop)
        offset, length = chunk.start + window.block_start, window.block_stop - window.block_start
        return self._verified(window, self._read_bytes(self.manifest.shards[chunk.shard].key, offset, length))

    def read_shard(self, index: int) -> Iterator[memoryview]:
        """Read a shard in order; each part is verified before it is yielded.

        Raises:
            DamageError: the shard is missing or damaged.
        """
        shard = self.manifest.shards[index]
        self.check_header(shard)
        yield self._read_bytes(shard.key, 0, shard.header_bytes)
        chunks = [c for tensor in self.manifest.tensors.values() for c in tensor.chunks if c.shard == index]
        for chunk in sorted(chunks, key=lambda chunk: chunk.start):
            for window in windows(0, chunk.length):
                yield self.read(chunk, *window)

    def stream(self, requests: Iterable[ReadRequest]) -> None:
        """Serve `requests` in parallel, in windows. Neighbors in a shard share a read.

        Raises:
            DamageError: something is missing or damaged; by then, some windows have been delivered.
        """

        def fetch(group: Sequence[tuple[ReadWindow, ReadRequest]]) -> None:
            (first, _), (last, _) = group[0], group[-1]
            base = first.chunk.start + first.block_start
            end = last.chunk.start + last.block_stop
            data = self._read_bytes(self.manifest.shards[first.chunk.shard].key, base, end - base)
            for window, request in group:
                offset = window.chunk.start - base
                blocks = data[offset + window.block_start : offset + window.block_stop]
                request.on_data(window.start - request.start, self._verified(window, blocks))

        parts = [(ReadWindow(each.chunk, *part), each) for each in requests for part in windows(each.start, each.stop)]
        with ThreadPoolExecutor(READERS, thread_name_prefix="restore") as readers:
            futures = [readers.submit(fetch, group) for group in coalesce(parts)]
            try:
                for future in futures:
                    future.result()
            finally:
                readers.shutdown(cancel_futures=True)

    def read_tensor(self, name: str) -> npt.NDArray[np.void]:
        """Read a whole tensor as raw elements; the manifest has their dtype.

        Raises:
            DamageError: something is missing or damaged.
        """
        tensor = self.manifest.tensors[name]
        for index in sorted({chunk.shard for chunk in tensor.chunks} - self._measured):
            self.check_size(self.manifest.shards[index])  # before memory for what may not exist is allocated
            self._measured.add(index)
        element = np.dtype(f"V{WIDTHS[tensor.dtype]}")
        whole = np.empty(tensor.shape, element)
        views = [whole[tuple(slice(o, o + s) for o, s in zip(c.offset, c.size, strict=True))] for c in tensor.chunks]
        pieces = [view if view.flags.c_contiguous else np.empty(view.shape, element) for view in views]

        def into(piece: npt.NDArray[np.void]) -> Callable[[int, memoryview], None]:
            flat = piece.reshape(-1).view(np.uint8)

            def write(offset: int, data: memoryview) -> None:
                flat[offset : offset + data.nbytes] = data

            return write

        self.stream(ReadRequest(c, 0, c.length, into(piece)) for c, piece in zip(tensor.chunks, pieces, strict=True))
        for view, piece in zip(views, pieces, strict=True):
            if piece is not view:
                view[...] = piece
        return whole

    def fingerprint(self) -> str:
        """SHA-256 of the parameters: sorted names, full tensors as stored. Equal for equal runs."""
        digest = hashlib.sha256()
        for name in sorted(name for name in self.manifest.tensors if name.startswith(PARAMETER_PREFIX)):
            tensor = self.manifest.tensors[name]
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(self.read_tensor(name).tobytes())
        return digest.hexdigest()

    def damage(self) -> Iterator[DamageError | int]:
        """Read the whole checkpoint; yields an error for each damage, and the number of bytes after each read."""
        try:
            manifest = self.manifest
        except DamageError as error:
            yield error
            return
        for shard in manifest.shards:
            try:
                self.check_header(shard)
            except DamageError as error:
                yield error
        chunks = sorted(
            ((name, chunk) for name, tensor in manifest.tensors.items() for chunk in tensor.chunks),
            key=lambda named: (named[1].shard, named[1].start),
        )
        jobs = [(*named, window) for named in chunks for window in windows(0, named[1].length)]
        with ThreadPoolExecutor(READERS) as readers:
            for finding, (_, _, window) in zip(readers.map(self._check_window, jobs), jobs, strict=True):
                if finding:
                    yield finding
                yield window[1] - window[0]

    def check_header(self, shard: Shard) -> None:
        """Check the length and the header of a shard, but not its tensors.

        Raises:
            DamageError: the shard is missing, its header is damaged, or its length is wrong.
        """
        if checksum([self._read_bytes(shard.key, 0, shard.header_bytes)]) != shard.checksum:
            raise DamageError(f"{shard.key}: its header is not the one that was written")
        self.check_size(shard)

    def check_size(self, shard: Shard) -> None:
        """Check the length of a shard.

        Raises:
            DamageError: the shard is missing, or its length is wrong.
        """
        try:
            size = self.store.size(shard.key)
        except MissingObject as error:
            raise DamageError(f"{shard.key}: missing") from error
        if size != shard.bytes:
            raise DamageError(f"{shard.key}: is {size:,} bytes long; {shard.bytes:,} were written")

    def is_complete(self) -> bool:
        """Whether the manifest is sound and all shards have their length; cheap, because it reads no tensor."""
        try:
            return all(self.store.size(shard.key) == shard.bytes for shard in self.manifest.shards)
        except (DamageError, MissingObject):
            return False

    def _read_manifest(self) -> CheckpointManifest:
        key = self.commit.manifest
        manifest = CheckpointManifest.decode(self.manifest_bytes, key)
        if CheckpointKey.parse(key) != CheckpointKey(manifest.run, manifest.tokens, manifest.attempt, keys.MANIFEST):
            raise DamageError(f"{key}: is the manifest of another checkpoint")
        for rank, shard in enumerate(manifest.shards):
            if shard.key != keys.shard(keys.folder(key), rank, len(manifest.shards)):
                raise DamageError(f"{key}: names shard {rank} {shard.key!r}, which is not of this checkpoint")
        return manifest

    def _check_window(self, job: tuple[str, Chunk, tuple[int, int]]) -> DamageError | None:
        name, chunk, window = job
        try:
            self.read(chunk, *window)
        except DamageError as error:
            return DamageError(f"{error} (tensor {name})")
        return None

    def _verified(self, window: ReadWindow, data: memoryview) -> memoryview:
        """Verify the blocks `data` around `window`; returns the bytes of the window."""
        chunk = window.chunk
        for at in range(window.block_start, window.block_stop, BLOCK_BYTES):
            block = data[at - window.block_start : at - window.block_start + BLOCK_BYTES]
            if checksum([block]) != chunk.checksums[at // BLOCK_BYTES]:
                start = chunk.start + at
                raise DamageError(
                    f"{self.manifest.shards[chunk.shard].key}: bytes {start:,} to {start + block.nbytes:,} "
                    f"are not those that were written"
                )
        return data[window.start - window.block_start : window.stop - window.block_start]

    def _read_bytes(self, key: str, start: int, length: int) -> memoryview:
        buffer = memoryview(bytearray(length))
        try:
            size = self.store.fill(key, buffer, start)
        except MissingObject as error:
            raise DamageError(f"{key}: missing") from error
        if size < length:
            raise DamageError(f"{key}: ends after {start + size:,} bytes, before byte {start + length:,}")
        return buffer
