"""A shard: the safetensors object that a rank writes. Serialized without copying tensors, and without pickle.

Layout of safetensors: 8 bytes of header length, a JSON header padded with spaces, then the tensors' bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from headway.checkpoint.manifest import Chunk, Shard, block_checksums, checksum
from headway.objectstore import Buffer

CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""safetensors' name of each dtype, by torch's name."""


@dataclass(frozen=True)
class Piece:
    """A rectangular part of a tensor that this rank holds, as bytes in host memory."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """Shape of the whole tensor."""
    offset: tuple[int, ...]
    """Index of the first element in the whole tensor."""
    size: tuple[int, ...]
    data: memoryview
    checksums: tuple[str, ...] = ()
    """Checksum of each block of `data`; computed here if missing."""

    def __post_init__(self) -> None:
        """Compute the checksums if they are missing."""
        if not self.checksums:
            object.__setattr__(self, "checksums", block_checksums(self.data))

    @property
    def key(self) -> str:
        """Name in the safetensors header."""
        return f"{self.name}@{','.join(map(str, self.offset))}"


@dataclass(frozen=True)
class SerializedShard:
    """A shard ready to be written: its parts in order, and its entries for the manifest."""

    parts: list[Buffer]
    shard: Shard
    chunks: list[Chunk]
    """Manifest entry of each piece, in order; `shard` is 0 in each until the manifest is assembled."""


def serialize(key: str, pieces: Sequence[Piece]) -> SerializedShard:
    """Serialize `pieces` as one safetensors object, with checksums of each piece and of the header."""
    at = 0
    entries: dict[str, object] = {}
    for piece in pieces:
        entries[piece.key] = {
            "dtype": CODES[piece.dtype],
            "shape": list(piece.size),
            "data_offsets": [at, at + piece.data.nbytes],
        }
        at += piece.data.nbytes
    entries["__metadata__"] = {piece.key: " ".join(piece.checksums) for piece in pieces}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    chunks, start = [], len(header)
    for piece in pieces:
        chunks.append(
            Chunk(
                shard=0,
                offset=piece.offset,
                size=piece.size,
                start=start,
                length=piece.data.nbytes,
                checksums=piece.checksums,
            )
        )
        start += piece.data.nbytes
    shard = Shard(key=key, bytes=start, header_bytes=len(header), checksum=checksum([header]))
    return SerializedShard([header, *(piece.data for piece in pieces)], shard, chunks)
