"""One shard: the safetensors object that a rank writes. Written and read here without a copy and without pickle.

Layout (safetensors): 8 bytes of header length, a JSON header padded with spaces, then the tensors' bytes.
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
"""Names of element types in safetensors, by torch's name."""


@dataclass(frozen=True)
class Piece:
    """A rectangle of a tensor that this rank holds, as bytes in host memory."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    offset: tuple[int, ...]
    size: tuple[int, ...]
    data: memoryview
    checksums: tuple[str, ...] = ()
    """Checksums of the blocks of `data`; computed here if whoever took the bytes has not."""

    def __post_init__(self) -> None:
        """Every piece has its checksums, from the moment that its bytes are there."""
        if not self.checksums:
            object.__setattr__(self, "checksums", block_checksums(self.data))

    @property
    def key(self) -> str:
        """Name inside the shard."""
        return f"{self.name}@{','.join(map(str, self.offset))}"


@dataclass(frozen=True)
class SerializedShard:
    """A shard ready to be written: its parts in order, and what the manifest will say of it."""

    parts: list[Buffer]
    shard: Shard
    chunks: list[Chunk]
    """Of the pieces, in their order; `shard` is still 0 in each."""


def serialize(key: str, pieces: Sequence[Piece]) -> SerializedShard:
    """Lay `pieces` out as one safetensors object, with a checksum for each and one for the header."""
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
