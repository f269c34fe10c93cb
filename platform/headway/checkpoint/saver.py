"""Saves checkpoints in the background: copies and hashes the state while training reads it, then uploads and commits.

Rank 0 commits by one journal entry, after every rank's shard is in the store. A save that fails on any rank fails on
all of them, with an error that names the rank; earlier checkpoints are untouched.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from headway.checkpoint.collectives import Collectives
from headway.checkpoint.commit import CheckpointWriter, Lineage, ShardReport
from headway.checkpoint.manifest import Progress
from headway.checkpoint.retention import Retention
from headway.checkpoint.staging import Staging
from headway.errors import FencedError, StoreError
from headway.runs import Run, keys


class Saver:
    """Saves the checkpoints of one attempt, one at a time: the next waits for the one before (back-pressure).

    So host memory is bounded, however slow the store is: one copy of this rank's state, and for a GPU 128 MiB of pinned
    buffers (`Staging`).
    """

    def __init__(
        self,
        run: Run,
        lineage: Lineage,
        collectives: Collectives,
        *,
        retention: Retention,
        on_commit: Callable[[int, str], None],
    ) -> None:
        """`collectives` needs a process group of its own, because a background thread uses it.

        That thread calls `on_commit` after each commit, with its tokens and a warning if the clean-up failed.
        """
        self.run, self.lineage, self.collectives = run, lineage, collectives
        self.retention, self.on_commit = retention, on_commit
        self.parent: str | None = None
        """Key of the previous checkpoint's manifest, the parent of the next."""
        self._staging = Staging()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a save is in progress."""
        return self._pending is not None and not self._pending.done()

    def save(self, tokens: int, tensors: Mapping[str, torch.Tensor], progress: Progress, ledger: str) -> None:
        """Start to save the state at `tokens`; `tensors` must not change before `await_copy`. Collective.

        `ledger` is written after the commit, because until then the time in it may still be lost.

        Raises:
            StoreError: the previous save failed.
            FencedError: the previous save found that a newer attempt has claimed the run.
        """
        self.wait()
        self._staging.begin(tensors)
        self._pending = self._thread.submit(self._write, tokens, tensors, progress, ledger)

    def await_copy(self) -> None:
        """Wait until the state is copied, and may change again."""
        self._staging.copied.wait()

    def wait(self) -> None:
        """Wait for the save in progress.

        Raises:
            StoreError: it failed; the message names rank and object.
            FencedError: a newer attempt has claimed the run.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def close(self) -> None:
        """Let the background threads end after their last task."""
        self._thread.submit(self._staging.close)
        self._thread.shutdown(wait=False)

    def _write(self, tokens: int, tensors: Mapping[str, torch.Tensor], progress: Progress, ledger: str) -> None:
        """Write this rank's shard; if all ranks succeed, rank 0 commits."""
        writer = CheckpointWriter(self.run, self.lineage, tokens)
        report: ShardReport
        try:
            pieces = self._staging.copy(tensors, is_coordinator=self.collectives.is_rank0)
            report = writer.write_shard(pieces, rank=self.collectives.rank, world_size=self.collectives.size)
        except Exception as error:
            report = {"error": f"rank {self.collectives.rank}: {error}"}
        reports = self.collectives.all_gather(report)
        failures = [each["error"] for each in reports if "error" in each]
        result: dict[str, str] = {"error": "; ".join(failures)} if failures else {}
        if self.collectives.is_rank0 and not failures:
            try:
                result = {"manifest": writer.commit(reports, parent=self.parent, progress=progress)}
            except FencedError as error:
                result = {"fenced": str(error)}
            except Exception as error:
                result = {"error": str(error)}
            else:
                result |= self._clean_up(ledger)
        result = self.collectives.broadcast(result)
        if "error" in result:
            raise StoreError(
                f"the checkpoint at {tokens:,} tokens was not saved: {result['error']}. "
                f"Earlier checkpoints are untouched; repair the store and run the same command again"
            )
        if "manifest" in result:
            self.parent = result["manifest"]
            self.on_commit(tokens, result.get("warning", ""))
        if "fenced" in result:
            raise FencedError(result["fenced"])

    def _clean_up(self, ledger: str) -> dict[str, str]:
        """Write the ledger, prune and pack. A failure here does not undo the commit."""
        try:
            self.run.store.put(keys.ledger(self.run.name, self.lineage.attempt), [ledger.encode()])
            self.retention.prune(self.run, self.lineage.attempt)
            self.run.journal.pack()
        except FencedError as error:
            return {"fenced": str(error)}
        except Exception as error:  # any error: the checkpoint is saved all the same
            return {"warning": str(error)}
        return {}
