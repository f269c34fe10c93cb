"""Saving: a short copy on the training thread, then checksums, upload and the one commit in the background.

The commit is the journal entry, and only rank 0 makes it, after every rank's shard is in the store. A save that
fails on any rank fails on all of them, by name; nothing that was committed before is touched.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from headway.checkpoint.manifest import Environment, Manifest, Progress, Shard, Tensor
from headway.checkpoint.ranks import Ranks
from headway.checkpoint.retention import Retention
from headway.checkpoint.shard import Laid, Piece, lay
from headway.errors import FencedError, StoreError
from headway.store import Committed, Run, keys
from headway.store.entries import sha256


@dataclass(frozen=True)
class Lineage:
    """What all checkpoints of an attempt have in common."""

    attempt: int
    recipe: str
    data: str
    environment: Environment


class Saver:
    """Saves one attempt's checkpoints, one at a time; the next waits for the one before (back-pressure)."""

    def __init__(
        self, run: Run, lineage: Lineage, ranks: Ranks, *, retention: Retention, announce: Callable[[int, str], None]
    ) -> None:
        """`ranks` must be a group of the saver's own: it is used from the background.

        `announce` is told from there the tokens of each commit, and what else went wrong, if anything did.
        """
        self.run, self.lineage, self.ranks, self.retention, self.announce = run, lineage, ranks, retention, announce
        self.parent: str | None = None
        """Key of the manifest that the next checkpoint follows."""
        self._staging: dict[str, torch.Tensor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def save(self, tokens: int, tensors: Mapping[str, torch.Tensor], progress: Progress, ledger: str) -> None:
        """Begin to save the state at `tokens`; returns as soon as it may change again. Collective.

        `ledger` is written once the commit is made: until then the time it books may yet be lost.

        Raises:
            StoreError: the save before this one failed.
            FencedError: the save before this one found a newer attempt.
        """
        self.wait()
        pieces = self._stage(tensors)
        self._pending = self._thread.submit(self._write, tokens, pieces, progress, ledger)

    def wait(self) -> None:
        """Wait until nothing is being saved.

        Raises:
            StoreError: it failed; names rank and object.
            FencedError: a newer attempt has claimed the run.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def _stage(self, tensors: Mapping[str, torch.Tensor]) -> list[Piece]:
        """Copy this rank's pieces into host memory that is kept from save to save."""
        planner = DefaultSavePlanner()
        planner.set_up_planner(dict(tensors), None, self.ranks.first)
        pieces = []
        for item in planner.create_local_plan().items:
            source = planner.resolve_data(item)
            where = item.tensor_data
            if where is None or not isinstance(source, torch.Tensor):
                raise TypeError(f"{item.index.fqn}: only tensors are saved in shards")
            if not source.numel():
                continue
            name = item.index.fqn
            if name not in self._staging:
                pinned = source.device.type == "cuda"
                self._staging[name] = torch.empty(source.shape, dtype=source.dtype, pin_memory=pinned)
            held = self._staging[name]
            held.copy_(source, non_blocking=True)
            pieces.append(
                Piece(
                    name=name,
                    dtype=str(held.dtype).removeprefix("torch."),
                    shape=tuple(where.size),
                    offset=tuple(where.chunk.offsets),
                    size=tuple(where.chunk.sizes),
                    data=held.view(-1).view(torch.uint8).numpy().data,
                )
            )
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return pieces

    def _write(self, tokens: int, pieces: Sequence[Piece], progress: Progress, ledger: str) -> None:
        """Write this rank's shard, and agree with the others on the commit."""
        prefix = keys.checkpoint(self.run.name, tokens, self.lineage.attempt)
        key = f"{prefix}{self.ranks.rank:05d}-of-{self.ranks.size:05d}.safetensors"
        report: dict[str, Any]
        try:
            laid = lay(key, pieces)
            self.run.store.put(key, laid.parts)
            report = {"shard": laid.shard.model_dump(), "tensors": _index(pieces, laid)}
        except Exception as error:
            report = {"error": f"rank {self.ranks.rank}: {error}"}
        reports = self.ranks.gather(report)
        failures = [each["error"] for each in reports if "error" in each]
        verdict: dict[str, str] = {"error": "; ".join(failures)} if failures else {}
        if self.ranks.first and not failures:
            try:
                verdict = self._commit(tokens, prefix, reports, progress, ledger)
            except FencedError as error:
                verdict = {"fenced": str(error)}
            except Exception as error:
                verdict = {"error": str(error)}
        verdict = self.ranks.tell(verdict)
        if "fenced" in verdict:
            raise FencedError(verdict["fenced"])
        if "error" in verdict:
            raise StoreError(
                f"the checkpoint at {tokens:,} tokens was not saved: {verdict['error']}. "
                f"Earlier checkpoints are untouched; mend the store and run the same command again"
            )
        self.parent = verdict["manifest"]
        self.announce(tokens, verdict.get("warning", ""))

    def _commit(self, tokens: int, prefix: str, reports: list[Any], progress: Progress, ledger: str) -> dict[str, str]:
        """Write the manifest and make it true. Rank 0 only."""
        manifest = Manifest(
            run=self.run.name,
            tokens=tokens,
            world_size=self.ranks.size,
            attempt=self.lineage.attempt,
            recipe=self.lineage.recipe,
            data=self.lineage.data,
            environment=self.lineage.environment,
            progress=progress,
            parent=self.parent,
            shards=tuple(Shard(**report["shard"]) for report in reports),
            tensors=_merge([report["tensors"] for report in reports]),
        )
        data, key = manifest.encode(), f"{prefix}manifest.json"
        self.run.store.put(key, [data])
        self.run.journal.append(
            Committed,
            self.lineage.attempt,
            tokens=tokens,
            manifest=key,
            sha256=sha256(data),
            bytes=sum(shard.bytes for shard in manifest.shards),
        )
        try:  # the commit is made: what fails from here on does not undo it
            self.run.store.put(keys.ledger(self.run.name, self.lineage.attempt), [ledger.encode()])
            self.retention.prune(self.run, self.lineage.attempt)
        except StoreError as error:
            return {"manifest": key, "warning": str(error)}
        return {"manifest": key}


def _index(pieces: Sequence[Piece], laid: Laid) -> dict[str, Any]:
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
