"""The manifest: small JSON that says all that a checkpoint is.

Its SHA-256 stands in the journal, and every byte of every shard is covered by a checksum in it, so a checkpoint is
sound exactly if its manifest and its shards match.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, Self

import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from headway.errors import DamageError
from headway.store import Buffer


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Chunk(_Part):
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
    checksum: str


class Tensor(_Part):
    """A whole tensor, and where its chunks lie."""

    dtype: str
    """As torch names it, without the `torch.`."""
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class Shard(_Part):
    """One safetensors object, written by one rank. The checksum is of its header; its bodies have their own."""

    key: str
    bytes: int
    header_bytes: int
    checksum: str


class Progress(_Part):
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


class Environment(_Part):
    """What, besides the recipe, arithmetic depends on."""

    device: str
    """Model of the processor that computed."""
    precision: str
    threads: int
    torch: str
    headway: str


class Manifest(_Part):
    """A checkpoint, whole."""

    format: Literal[1] = 1
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
        """Every tensor is covered by its chunks, every chunk lies in a shard, and none overlap there."""
        spans: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for name, tensor in self.tensors.items():
            if sum(math.prod(chunk.size) for chunk in tensor.chunks) != math.prod(tensor.shape):
                raise ValueError(f"tensor {name} is not covered by its chunks")
            for chunk in tensor.chunks:
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


def decode(data: bytes, key: str) -> Manifest:
    """A manifest from its bytes.

    Raises:
        DamageError: they are not a manifest.
    """
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DamageError(f"{key}: not a sound manifest: {first['msg']}") from error


def checksum(parts: Sequence[Buffer]) -> str:
    """XXH3-128 over `parts` joined, in hex: finds damage at memory speed; trust comes from the journal's SHA-256."""
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.hexdigest()
