"""Saving beside the training: a copy taken and hashed while training reads on, then upload and the one commit.

The commit is the journal entry, and only rank 0 makes it, after every rank's shard is in the store. A save that
fails on any rank fails on all of them, by name; nothing that was committed before is touched.
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
    """Saves one attempt's checkpoints, one at a time; the next waits for the one before (back-pressure).

    So host memory is bounded, however slow the store is: one copy of this rank's state, from which it is sent, and from
    a GPU 128 MiB of pinned buffers (`Staging`).
    """

    def __init__(
        self,
        run: Run,
        lineage: Lineage,
        ranks: Collectives,
        *,
        retention: Retention,
        announce: Callable[[int, str], None],
    ) -> None:
        """`ranks` must be a group of the saver's own: it is used from the background.

        `announce` is told from there the tokens of each commit, and what else went wrong, if anything did.
        """
        self.run, self.lineage, self.ranks, self.retention, self.announce = run, lineage, ranks, retention, announce
        self.parent: str | None = None
        """Key of the manifest that the next checkpoint follows."""
        self._staging = Staging()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a save is on its way."""
        return self._pending is not None and not self._pending.done()

    def save(self, tokens: int, tensors: Mapping[str, torch.Tensor], progress: Progress, ledger: str) -> None:
        """Begin to save the state at `tokens`; `tensors` must not change before `await_copy`. Collective.

        `ledger` is written once the commit is made: until then the time it books may yet be lost.

        Raises:
            StoreError: the save before this one failed.
            FencedError: the save before this one found a newer attempt.
        """
        self.wait()
        self._staging.begin(tensors)
        self._pending = self._thread.submit(self._write, tokens, tensors, progress, ledger)

    def await_copy(self) -> None:
        """Wait until the state that is being saved may change again."""
        self._staging.taken.wait()

    def wait(self) -> None:
        """Wait until nothing is being saved.

        Raises:
            StoreError: it failed; names rank and object.
            FencedError: a newer attempt has claimed the run.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def close(self) -> None:
        """Let go of the background threads, once they have nothing to do any more."""
        self._thread.submit(self._staging.close)
        self._thread.shutdown(wait=False)

    def _write(self, tokens: int, tensors: Mapping[str, torch.Tensor], progress: Progress, ledger: str) -> None:
        """Write this rank's shard, and agree with the others on the commit."""
        commit = CheckpointWriter(self.run, self.lineage, tokens)
        report: ShardReport
        try:
            pieces = self._staging.copy(tensors, first=self.ranks.first)
            report = commit.write_shard(pieces, rank=self.ranks.rank, ranks=self.ranks.size)
        except Exception as error:
            report = {"error": f"rank {self.ranks.rank}: {error}"}
        reports = self.ranks.gather(report)
        failures = [each["error"] for each in reports if "error" in each]
        verdict: dict[str, str] = {"error": "; ".join(failures)} if failures else {}
        if self.ranks.first and not failures:
            try:
                verdict = {"manifest": commit.commit(reports, parent=self.parent, progress=progress)}
            except FencedError as error:
                verdict = {"fenced": str(error)}
            except Exception as error:
                verdict = {"error": str(error)}
            else:
                verdict |= self._tidy(ledger)
        verdict = self.ranks.broadcast(verdict)
        if "error" in verdict:
            raise StoreError(
                f"the checkpoint at {tokens:,} tokens was not saved: {verdict['error']}. "
                f"Earlier checkpoints are untouched; mend the store and run the same command again"
            )
        if "manifest" in verdict:
            self.parent = verdict["manifest"]
            self.announce(tokens, verdict.get("warning", ""))
        if "fenced" in verdict:
            raise FencedError(verdict["fenced"])

    def _tidy(self, ledger: str) -> dict[str, str]:
        """What follows a commit; if it fails, that does not undo the commit."""
        try:
            self.run.store.put(keys.ledger(self.run.name, self.lineage.attempt), [ledger.encode()])
            self.retention.prune(self.run, self.lineage.attempt)
            self.run.journal.pack()
        except FencedError as error:
            return {"fenced": str(error)}
        except Exception as error:  # not only the store's: whatever it is, the checkpoint is saved
            return {"warning": str(error)}
        return {}
