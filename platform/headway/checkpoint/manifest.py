"""The manifest of a checkpoint: a small JSON document that describes its tensors and shards.

The journal holds the manifest's SHA-256, and the manifest holds checksums of every byte of every shard, so any damage
to a checkpoint shows. Chunks are checked in blocks: a rank that needs a few rows reads and checks only the blocks of
those.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Literal, Self

import xxhash
from pydantic import Field, model_validator

from headway.json_manifest import Manifest, ManifestPart
from headway.objectstore import Buffer
from headway.runs.field_types import ByteCount, Count, Line, Number, Tokens

MANIFEST_BYTES = 32 << 20
"""Longest manifest [bytes]: about 130,000 chunks, such as of 8 billion parameters on 150 ranks."""
HEADER_BYTES = 32 << 20
"""Longest header of a shard [bytes]: more than 100,000 chunks."""
MAX_DIMENSIONS = 8
"""Most dimensions of a tensor."""
MAX_CUTS = 3
"""Most dimensions along which a tensor is cut into chunks. FSDP cuts one."""
BLOCK_BYTES = 4 << 20
"""Bytes under one checksum: large enough to read at full speed, small enough to skip what is not needed."""
WIDTHS = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Bytes per element, by torch's name of the dtype."""


Extent = Annotated[int, Field(ge=1, le=2**48)]
Shape = Annotated[tuple[Extent, ...], Field(max_length=MAX_DIMENSIONS)]
Offset = Annotated[tuple[Annotated[int, Field(ge=0, le=2**48)], ...], Field(max_length=MAX_DIMENSIONS)]


class Chunk(ManifestPart):
    """A rectangular part of a tensor, held by one rank."""

    shard: Count
    """Index into the manifest's shards."""
    offset: Offset
    """Index of the first element in the whole tensor."""
    size: Shape
    start: ByteCount
    """First byte in the shard."""
    length: ByteCount
    """Bytes."""
    checksums: tuple[str, ...]
    """Checksum of each block of `BLOCK_BYTES`; the last block may be shorter."""


class Tensor(ManifestPart):
    """A whole tensor, as a list of its chunks."""

    dtype: str
    """torch's name without `torch.`, such as `float32`."""
    shape: Shape
    chunks: tuple[Chunk, ...]


class Shard(ManifestPart):
    """One safetensors object, written by one rank. `checksum` covers its header; the chunks have their own."""

    key: str
    bytes: ByteCount
    header_bytes: Annotated[int, Field(ge=8, le=HEADER_BYTES)]
    checksum: Line


class Progress(ManifestPart):
    """State of the run that is not a tensor: all that a resume needs besides."""

    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)]
    updates: Tokens
    """Optimizer steps: batches consumed, without those that decisions skipped."""
    losses: tuple[float, ...] = ()
    """Losses of the last batches, the window for the detection of spikes."""
    held_out: float | None = None
    """Held-out loss of the last evaluation [nats per token]."""
    skipped: tuple[tuple[Tokens, Tokens], ...] = ()
    """Ranges of positions that decisions skipped [tokens]; kept here so that a resume needs no old journal entries."""
    evaluated: Tokens = 0
    """Position of the last evaluation [tokens]."""


class Environment(ManifestPart):
    """All that the arithmetic depends on besides the recipe."""

    device: str
    """Model of the GPU or CPU."""
    precision: str
    threads: Count
    torch: str
    headway: str
    arithmetic: Count = 1
    """Version of the order and rounding of Headway's own sums; 1 in checkpoints that do not record it."""
    settings: dict[str, str] = Field(default_factory=dict)
    """torch settings that can change bits."""


class CheckpointManifest(Manifest):
    """The manifest of one checkpoint."""

    format: Literal[2] = 2
    run: str
    attempt: Number
    tokens: Tokens
    recipe: Line
    """Digest."""
    data: Line
    """Digest."""
    world_size: Count
    environment: Environment
    progress: Progress
    parent: str | None
    """Key of the manifest before this one: committed or restored by this attempt."""
    shards: tuple[Shard, ...]
    tensors: dict[str, Tensor]

    @model_validator(mode="after")
    def _covers(self) -> Self:
        """Check that chunks cover every tensor and every shard exactly: no gap, no overlap."""
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


def _problems(tensor: Tensor) -> Iterator[str]:
    """What is wrong with the chunks of a tensor."""
    if tensor.dtype not in WIDTHS:
        yield f"has elements of unknown type {tensor.dtype}"
        return
    rank = len(tensor.shape)
    for chunk in tensor.chunks:
        if len(chunk.offset) != rank or len(chunk.size) != rank:
            yield f"has a chunk of {len(chunk.size)} dimensions, of {rank}"
        elif any(o + s > n for o, s, n in zip(chunk.offset, chunk.size, tensor.shape, strict=True)):
            yield f"has a chunk outside of it at {chunk.offset}"
        elif chunk.length != math.prod(chunk.size) * WIDTHS[tensor.dtype]:
            yield f"has a chunk of {chunk.length} bytes for {chunk.size} elements"
        elif len(chunk.checksums) != -(-chunk.length // BLOCK_BYTES):
            yield f"has a chunk with {len(chunk.checksums)} checksums for {chunk.length} bytes"
        else:
            continue
        return
    cuts = [axis for axis in range(rank) if any(chunk.size[axis] != tensor.shape[axis] for chunk in tensor.chunks)]
    if len(cuts) > MAX_CUTS:
        yield f"is cut along {len(cuts)} dimensions"
    elif not _is_covered(tensor, cuts):
        yield "is not covered by its chunks"


def _is_covered(tensor: Tensor, cuts: Sequence[int]) -> bool:
    """Whether every element is in one chunk, no more and no less, in time that grows with the number of chunks.

    Adds up the corners of all chunks, each with the sign of its parity. A rectangle is determined by its signed
    corners, and so is a sum of rectangles: it is the whole tensor once iff the sum is the corners of the whole.
    """
    corners: Counter[tuple[int, ...]] = Counter()
    for ends in product((0, 1), repeat=len(cuts)):
        sign, moves = (-1) ** sum(ends), tuple(zip(cuts, ends, strict=True))
        corners[tuple(end * tensor.shape[axis] for axis, end in moves)] -= sign
        for chunk in tensor.chunks:
            corners[tuple(chunk.offset[axis] + end * chunk.size[axis] for axis, end in moves)] += sign
    return not any(corners.values())


def checksum(parts: Sequence[Buffer]) -> str:
    """XXH3-128 of the joined `parts`, in hex. It detects damage at memory speed, but no forgery; SHA-256 does."""
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def block_checksums(data: memoryview) -> tuple[str, ...]:
    """The checksum of each block of `data`, in order."""
    return tuple(checksum([data[at : at + BLOCK_BYTES]]) for at in range(0, data.nbytes, BLOCK_BYTES))
