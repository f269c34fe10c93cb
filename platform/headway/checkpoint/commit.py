"""The one commit point: shards first, then the manifest that names them, then the journal entry that makes it true.

A save that stops anywhere before the entry is garbage that nobody reads. Free of torch, so that the very code which
ranks run is what the protocol's simulation runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headway.checkpoint.manifest import CheckpointManifest, Environment, Progress, Shard, Tensor
from headway.checkpoint.shard import Piece, SerializedShard, serialize
from headway.runs import Committed, Run, keys
from headway.runs.entries import sha256

ShardReport = dict[str, Any]
"""What a rank says of the shard it wrote, in the manifest's words; plain data, for it travels as JSON."""


@dataclass(frozen=True)
class Lineage:
    """What all checkpoints of an attempt have in common."""

    attempt: int
    recipe: str
    data: str
    environment: Environment


@dataclass(frozen=True)
class CheckpointWriter:
    """One checkpoint in the making, by one attempt."""

    run: Run
    lineage: Lineage
    tokens: int

    @property
    def prefix(self) -> str:
        """Of its keys: never used before, never used again."""
        return keys.checkpoint(self.run.name, self.tokens, self.lineage.attempt)

    def write_shard(self, pieces: Sequence[Piece], *, rank: int, ranks: int) -> ShardReport:
        """Write what one rank holds.

        Raises:
            StoreError: it could not be written.
        """
        laid = serialize(f"{self.prefix}{rank:05d}-of-{ranks:05d}.safetensors", pieces)
        self.run.store.put(laid.shard.key, laid.parts)
        return {"shard": laid.shard.model_dump(), "tensors": _index(pieces, laid)}

    def commit(self, reports: Sequence[ShardReport], *, parent: str | None, progress: Progress) -> str:
        """Write the manifest of what all ranks wrote, and commit it; returns the manifest's key. Rank 0 only.

        Raises:
            FencedError: a newer attempt has claimed the run; nothing was committed.
            StoreError: the store failed. If that was the last step, nobody knows: the journal will tell.
        """
        manifest = CheckpointManifest(
            run=self.run.name,
            tokens=self.tokens,
            world_size=len(reports),
            attempt=self.lineage.attempt,
            recipe=self.lineage.recipe,
            data=self.lineage.data,
            environment=self.lineage.environment,
            progress=progress,
            parent=parent,
            shards=tuple(Shard(**report["shard"]) for report in reports),
            tensors=_merge([report["tensors"] for report in reports]),
        )
        data, key = manifest.encode(), f"{self.prefix}manifest.json"
        self.run.store.put(key, [data])
        self.run.journal.append(
            Committed,
            self.lineage.attempt,
            tokens=self.tokens,
            manifest=key,
            sha256=sha256(data),
            bytes=sum(shard.bytes for shard in manifest.shards),
        )
        return key


def _index(pieces: Sequence[Piece], laid: SerializedShard) -> dict[str, Any]:
    """What one rank holds, in the manifest's words."""
    index: dict[str, Any] = {}
    for piece, chunk in zip(pieces, laid.chunks, strict=True):
        entry = index.setdefault(piece.name, {"dtype": piece.dtype, "shape": piece.shape, "chunks": []})
        entry["chunks"].append(chunk.model_dump())
    return index


def _merge(indices: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """The tensors of all ranks; each chunk learns which shard it is in."""
    whole: dict[str, Any] = {}
    for rank, index in enumerate(indices):
        for name, entry in index.items():
            target = whole.setdefault(name, {**entry, "chunks": []})
            target["chunks"] += [{**chunk, "shard": rank} for chunk in entry["chunks"]]
    return {name: Tensor.model_validate(entry) for name, entry in sorted(whole.items())}
