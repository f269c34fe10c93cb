"""A checkpoint in the store: opened from its journal entry, every read of it verified."""

import hashlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headway.checkpoint.manifest import Chunk, Manifest, Shard, checksum, decode
from headway.errors import DamageError, MissingObject
from headway.store import Committed, Store

PARAMETERS = "model."
"""Prefix of the names of parameters, as against the optimizer's state."""
WIDTHS = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


class StoredCheckpoint:
    """A committed checkpoint."""

    def __init__(self, store: Store, commit: Committed) -> None:
        self.store, self.commit = store, commit

    @cached_property
    def manifest(self) -> Manifest:
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

    def chunk(self, chunk: Chunk) -> bytes:
        """The bytes of a chunk.

        Raises:
            DamageError: they are not those that were written.
        """
        shard = self.manifest.shards[chunk.shard]
        return self._read(shard.key, chunk.start, chunk.length, chunk.checksum)

    def tensor(self, name: str) -> npt.NDArray[np.void]:
        """A whole tensor, as raw elements: the caller knows its type from the manifest."""
        tensor = self.manifest.tensors[name]
        element = np.dtype(f"V{WIDTHS[tensor.dtype]}")
        whole = np.empty(tensor.shape, element)
        for chunk in tensor.chunks:
            rectangle = tuple(slice(o, o + s) for o, s in zip(chunk.offset, chunk.size, strict=True))
            whole[rectangle] = np.frombuffer(self.chunk(chunk), element).reshape(chunk.size)
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
        for index, shard in enumerate(manifest.shards):
            chunks = [(name, c) for name, t in manifest.tensors.items() for c in t.chunks if c.shard == index]
            try:
                self.check_frame(shard)
            except DamageError as error:
                yield error
            for name, chunk in chunks:
                try:
                    self.chunk(chunk)
                except DamageError as error:
                    yield DamageError(f"{error} (tensor {name})")
                yield chunk.length

    def check_frame(self, shard: Shard) -> None:
        """See that a shard has its length and its header; its tensors are checked as they are read.

        Raises:
            DamageError: it has not.
        """
        self._read(shard.key, 0, shard.header_bytes, shard.checksum)
        if (size := self.store.size(shard.key)) != shard.bytes:
            raise DamageError(f"{shard.key}: is {size:,} bytes long; {shard.bytes:,} were written")

    def complete(self) -> bool:
        """Whether manifest and shards are there at their full length: a cheap look that reads no tensor."""
        try:
            return all(self.store.size(shard.key) == shard.bytes for shard in self.manifest.shards)
        except (DamageError, MissingObject):
            return False

    def _read(self, key: str, start: int, length: int, expected: str) -> bytes:
        try:
            data = self.store.get(key, start, length)
        except MissingObject as error:
            raise DamageError(f"{key}: missing") from error
        if checksum([data]) != expected:
            raise DamageError(f"{key}: bytes {start:,} to {start + length:,} are not those that were written")
        return data
