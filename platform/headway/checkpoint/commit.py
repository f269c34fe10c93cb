"""Commits a checkpoint: first the shards, then the manifest that names them, then the journal entry that commits it.

A save that stops before the entry leaves garbage that nobody reads. This module does not use torch, so that the
simulation of the protocol runs the same code as the ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headway.checkpoint.manifest import MANIFEST_BYTES, CheckpointManifest, Environment, Progress, Shard, Tensor
from headway.checkpoint.shard import Piece, SerializedShard, serialize
from headway.errors import StoreError
from headway.runs import Committed, Run, keys
from headway.runs.entries import sha256

ShardReport = dict[str, Any]
"""A rank's part of the manifest: its shard, and the chunks in it. Plain data, because ranks exchange it as JSON."""


@dataclass(frozen=True)
class Lineage:
    """The fields that all checkpoints of an attempt share."""

    attempt: int
    recipe: str
    """Digest."""
    data: str
    """Digest."""
    environment: Environment


@dataclass(frozen=True)
class CheckpointWriter:
    """Writes one checkpoint of an attempt."""

    run: Run
    lineage: Lineage
    tokens: int

    @property
    def prefix(self) -> str:
        """Key prefix of this checkpoint; no other checkpoint ever has the same."""
        return keys.checkpoint(self.run.name, self.tokens, self.lineage.attempt)

    def write_shard(self, pieces: Sequence[Piece], *, rank: int, world_size: int) -> ShardReport:
        """Write the shard of one rank.

        Raises:
            StoreError: the store failed.
        """
        serialized = serialize(keys.shard(self.prefix, rank, world_size), pieces)
        self.run.store.put(serialized.shard.key, serialized.parts)
        return {"shard": serialized.shard.model_dump(), "tensors": _index(pieces, serialized)}

    def commit(self, reports: Sequence[ShardReport], *, parent: str | None, progress: Progress) -> str:
        """Write the manifest of all ranks' shards, and commit it; returns the manifest's key. Rank 0 only.

        Raises:
            FencedError: a newer attempt has claimed the run; nothing is committed.
            StoreError: the store failed, or the manifest is too long. If the store failed in the last step, only the
            journal tells whether this is committed.
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
        data, key = manifest.encode(), keys.checkpoint_manifest(self.run.name, self.tokens, self.lineage.attempt)
        if len(data) > MANIFEST_BYTES:
            raise StoreError(f"{key}: would be {len(data):,} bytes long; readers take {MANIFEST_BYTES:,} at most")
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


def _index(pieces: Sequence[Piece], serialized: SerializedShard) -> dict[str, Any]:
    """The tensors in one rank's shard, in the format of the manifest."""
    index: dict[str, Any] = {}
    for piece, chunk in zip(pieces, serialized.chunks, strict=True):
        entry = index.setdefault(piece.name, {"dtype": piece.dtype, "shape": piece.shape, "chunks": []})
        entry["chunks"].append(chunk.model_dump())
    return index


def _merge(indices: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Merge the tensors of all ranks; sets the shard of each chunk."""
    merged: dict[str, Any] = {}
    for rank, index in enumerate(indices):
        for name, entry in index.items():
            target = merged.setdefault(name, {**entry, "chunks": []})
            target["chunks"] += [{**chunk, "shard": rank} for chunk in entry["chunks"]]
    return {name: Tensor.model_validate(entry) for name, entry in sorted(merged.items())}
