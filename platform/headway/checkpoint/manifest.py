"""The manifest: small JSON that says all that a checkpoint is.

Its SHA-256 stands in the journal, and every byte of every shard is covered by a checksum in it, so a checkpoint is
sound exactly if its manifest and its shards match. The bytes of a chunk are checked in blocks, so that a rank that
needs a few rows of it reads and checks no more than those.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Literal, Self

import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from headway.errors import DamageError
from headway.objectstore import Buffer

BLOCK_BYTES = 4 << 20
"""Bytes under one checksum: large enough to read a store at full speed, small enough to skip what is not needed."""
WIDTHS = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Bytes of an element, by torch's name of its type."""


class _ManifestPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Chunk(_ManifestPart):
    """A rectangle of a tensor, as one rank held it."""

    shard: int
    """Index into the manifest's shards."""
    offset: tuple[int, ...]
    """Of the rectangle in the whole tensor."""
    size: tuple[int, ...]
    start: int
    """First byte in the shard."""
    length: int
    """Bytes."""
    checksums: tuple[str, ...]
    """Of its blocks of `BLOCK_BYTES`; the last may be shorter."""


class Tensor(_ManifestPart):
    """A whole tensor, and where its chunks lie."""

    dtype: str
    """As torch names it, without the `torch.`."""
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class Shard(_ManifestPart):
    """One safetensors object, written by one rank. The checksum is of its header; its bodies have their own."""

    key: str
    bytes: int
    header_bytes: int
    checksum: str


class Progress(_ManifestPart):
    """Where the run stands, besides its tensors: all that a resume needs."""

    seed: int
    updates: int
    """Optimizer steps taken: batches consumed, less those that decisions skipped."""
    losses: tuple[float, ...] = ()
    """Losses of the last batches, which the next spike is judged by."""
    held_out: float | None = None
    """Held-out loss of the last evaluation [nats per token]."""
    skipped: tuple[tuple[int, int], ...] = ()
    """Ranges of batches that decisions took out [tokens], so that a checkpoint stands without the journal's entries."""
    evaluated: int = 0
    """Where that was [tokens]."""


class Environment(_ManifestPart):
    """What, besides the recipe, arithmetic depends on."""

    device: str
    """Model of the processor that computed."""
    precision: str
    threads: int
    torch: str
    headway: str
    arithmetic: int = 1
    """Version of the order and rounding of Headway's own sums; checkpoints before it was recorded have the first."""
    settings: dict[str, str] = {}
    """What torch was told, where it could choose."""


class CheckpointManifest(_ManifestPart):
    """A checkpoint, whole."""

    format: Literal[2] = 2
    run: str
    attempt: int
    tokens: int
    recipe: str
    """Digest."""
    data: str
    """Digest."""
    world_size: int
    environment: Environment
    progress: Progress
    parent: str | None
    """Key of the manifest that this attempt resumed from or committed before."""
    shards: tuple[Shard, ...]
    tensors: dict[str, Tensor]

    @model_validator(mode="after")
    def _covers(self) -> Self:
        """Chunks make up every tensor, and lie in the shards one after the other: nothing missing, nothing twice."""
        spans: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for name, tensor in self.tensors.items():
            for problem in _problems(tensor):
                raise ValueError(f"tensor {name} {problem}")
            for chunk in tensor.chunks:
                if not 0 <= chunk.shard < len(self.shards):
                    raise ValueError(f"tensor {name} has a chunk in shard {chunk.shard}, of {len(self.shards)} shards")
                spans[chunk.shard].append((chunk.start, chunk.start + chunk.length))
        for index, shard in enumerate(self.shards):
            at = shard.header_bytes
            for start, end in sorted(spans[index]):
                if start != at:
                    raise ValueError(f"shard {shard.key} has a hole or an overlap at byte {at}")
                at = end
            if at != shard.bytes:
                raise ValueError(f"shard {shard.key} is {shard.bytes} bytes long, and its tensors end at {at}")
        return self

    def encode(self) -> bytes:
        """The manifest as JSON for people: one line a tensor chunk."""
        return json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n"


def _problems(tensor: Tensor) -> Iterator[str]:
    """What is wrong with how chunks make up a tensor."""
    if tensor.dtype not in WIDTHS:
        yield f"has elements of unknown type {tensor.dtype}"
        return
    rank = len(tensor.shape)
    for chunk in tensor.chunks:
        if len(chunk.offset) != rank or len(chunk.size) != rank:
            yield f"has a chunk of {len(chunk.size)} dimensions, of {rank}"
        elif any(o < 0 or s < 1 or o + s > n for o, s, n in zip(chunk.offset, chunk.size, tensor.shape, strict=True)):
            yield f"has a chunk outside of it at {chunk.offset}"
        elif chunk.length != math.prod(chunk.size) * WIDTHS[tensor.dtype]:
            yield f"has a chunk of {chunk.length} bytes for {chunk.size} elements"
        elif len(chunk.checksums) != -(-chunk.length // BLOCK_BYTES):
            yield f"has a chunk with {len(chunk.checksums)} checksums for {chunk.length} bytes"
        else:
            continue
        return
    if sum(math.prod(chunk.size) for chunk in tensor.chunks) != math.prod(tensor.shape) or _overlap(tensor):
        yield "is not covered by its chunks"


def _overlap(tensor: Tensor) -> bool:
    """Whether an element lies in two chunks. Rows, which is how FSDP cuts, are told in one pass."""
    if all(chunk.size[1:] == tensor.shape[1:] for chunk in tensor.chunks):
        rows = sorted((chunk.offset[0], chunk.size[0]) for chunk in tensor.chunks if tensor.shape)
        return any(low + length > following for (low, length), (following, _) in pairwise(rows))
    return any(
        all(p < o + s and o < p + q for o, s, p, q in zip(a.offset, a.size, b.offset, b.size, strict=True))
        for a, b in combinations(tensor.chunks, 2)
    )


def decode(data: bytes, key: str) -> CheckpointManifest:
    """A manifest from its bytes.

    Raises:
        DamageError: they are not a manifest.
    """
    try:
        return CheckpointManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DamageError(f"{key}: not a sound manifest: {first['msg']}") from error


def checksum(parts: Sequence[Buffer]) -> str:
    """XXH3-128 over `parts` joined, in hex: finds damage at memory speed; trust comes from the journal's SHA-256."""
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def block_checksums(data: memoryview) -> tuple[str, ...]:
    """The checksum of each block of `data`, one after the other."""
    return tuple(checksum([data[at : at + BLOCK_BYTES]]) for at in range(0, data.nbytes, BLOCK_BYTES))
