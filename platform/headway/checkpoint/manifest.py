"""The manifest of a checkpoint: a small JSON document that describes its tensors and shards.

The journal holds the manifest's SHA-256, and the manifest holds checksums of every byte of every shard, so any damage
to a checkpoint shows. Chunks are checked in blocks: a rank that needs a few rows reads and checks only the blocks of
those.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Literal, Self

import xxhash
from pydantic import Field, model_validator

from headway.json_manifest import Manifest, ManifestPart
from headway.objectstore import Buffer

BLOCK_BYTES = 4 << 20
"""Bytes under one checksum: large enough to read at full speed, small enough to skip what is not needed."""
WIDTHS = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Bytes per element, by torch's name of the dtype."""


class Chunk(ManifestPart):
    """A rectangular part of a tensor, held by one rank."""

    shard: int
    """Index into the manifest's shards."""
    offset: tuple[int, ...]
    """Index of the first element in the whole tensor."""
    size: tuple[int, ...]
    start: int
    """First byte in the shard."""
    length: int
    """Bytes."""
    checksums: tuple[str, ...]
    """Checksum of each block of `BLOCK_BYTES`; the last block may be shorter."""


class Tensor(ManifestPart):
    """A whole tensor, as a list of its chunks."""

    dtype: str
    """torch's name without `torch.`, such as `float32`."""
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class Shard(ManifestPart):
    """One safetensors object, written by one rank. `checksum` covers its header; the chunks have their own."""

    key: str
    bytes: int
    header_bytes: int
    checksum: str


class Progress(ManifestPart):
    """State of the run that is not a tensor: all that a resume needs besides."""

    seed: int
    updates: int
    """Optimizer steps: batches consumed, without those that decisions skipped."""
    losses: tuple[float, ...] = ()
    """Losses of the last batches, the window for the detection of spikes."""
    held_out: float | None = None
    """Held-out loss of the last evaluation [nats per token]."""
    skipped: tuple[tuple[int, int], ...] = ()
    """Ranges of positions that decisions skipped [tokens]; kept here so that a resume needs no old journal entries."""
    evaluated: int = 0
    """Position of the last evaluation [tokens]."""


class Environment(ManifestPart):
    """All that the arithmetic depends on besides the recipe."""

    device: str
    """Model of the GPU or CPU."""
    precision: str
    threads: int
    torch: str
    headway: str
    arithmetic: int = 1
    """Version of the order and rounding of Headway's own sums; 1 in checkpoints that do not record it."""
    settings: dict[str, str] = Field(default_factory=dict)
    """torch settings that can change bits."""


class CheckpointManifest(Manifest):
    """The manifest of one checkpoint."""

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
    """Whether any element is in two chunks. Takes one pass if all chunks are whole rows, as FSDP makes them."""
    if all(chunk.size[1:] == tensor.shape[1:] for chunk in tensor.chunks):
        rows = sorted((chunk.offset[0], chunk.size[0]) for chunk in tensor.chunks if tensor.shape)
        return any(low + length > following for (low, length), (following, _) in pairwise(rows))
    return any(
        all(p < o + s and o < p + q for o, s, p, q in zip(a.offset, a.size, b.offset, b.size, strict=True))
        for a, b in combinations(tensor.chunks, 2)
    )


def checksum(parts: Sequence[Buffer]) -> str:
    """XXH3-128 of the joined `parts`, in hex. It detects damage at memory speed, but no forgery; SHA-256 does."""
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.hexdigest()


def block_checksums(data: memoryview) -> tuple[str, ...]:
    """The checksum of each block of `data`, in order."""
    return tuple(checksum([data[at : at + BLOCK_BYTES]]) for at in range(0, data.nbytes, BLOCK_BYTES))
