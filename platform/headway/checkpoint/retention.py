"""Retention: prunes old checkpoints. The journal records the pruning before any object is deleted."""

from dataclasses import dataclass, field

from headway.checkpoint.reader import StoredCheckpoint
from headway.runs import Committed, History, Pruned, Run, keys
from headway.runs.keys import CheckpointKey

BATCH = 1000
"""Most checkpoints that one entry prunes, so that entries stay short."""


@dataclass
class Retention:
    """Keeps the newest `keep` sound checkpoints, one that a rollback can return to, and one from before trouble.

    Trouble begins with a bad batch, and is over once `keep` checkpoints in a row have no bad batch between them.
    """

    keep: int
    horizon: int = 0
    """How far back a rollback may go [tokens]; 0 if the recipe has none."""
    damaged: set[str] = field(default_factory=set)
    """Manifests of damaged checkpoints, which do not count towards `keep`."""
    _complete: set[str] = field(default_factory=set)
    """Manifests of checkpoints that are known to be complete."""

    def surplus(self, run: Run) -> list[Committed]:
        """The commits to prune: those that a rollback undid, and the old ones."""
        history = run.history()
        commits, surplus = history.commits, history.rolled_back
        sound, covered, last_good = 0, not self.horizon, self._before_trouble(run, history)
        for commit in reversed(commits):
            if sound >= self.keep and covered:
                if commit is not last_good:
                    surplus.append(commit)
            elif self._is_sound(run, commit):
                sound += 1
                covered = covered or commit.tokens <= commits[-1].tokens - self.horizon
        return surplus

    def _before_trouble(self, run: Run, history: History) -> Committed | None:
        """The newest sound checkpoint from before the present trouble; None if there is no trouble."""
        trouble, in_a_row = None, 0
        checkpoints = [(tokens, False) for tokens in sorted(set(history.positions))]
        for tokens, is_bad in sorted([*checkpoints, *((each.skip_from, True) for each in history.bad_batches)]):
            in_a_row = 0 if is_bad else in_a_row + 1
            if is_bad and trouble is None:
                trouble = tokens
            elif in_a_row >= self.keep:
                trouble = None
        if trouble is None:
            return None
        earlier = (each for each in reversed(history.commits) if each.tokens <= trouble)
        return next((each for each in earlier if self._is_sound(run, each)), None)

    def _is_sound(self, run: Run, commit: Committed) -> bool:
        """Whether a checkpoint counts towards `keep`; a complete one is checked only once."""
        if commit.manifest in self.damaged:
            return False
        if commit.manifest not in self._complete and StoredCheckpoint(run.store, commit).is_complete():
            self._complete.add(commit.manifest)
        return commit.manifest in self._complete

    def prune(self, run: Run, attempt: int) -> None:
        """Prune the surplus, in the name of `attempt`."""
        surplus = self.surplus(run)
        for start in range(0, len(surplus), BATCH):
            batch = surplus[start : start + BATCH]
            run.journal.append(Pruned, attempt, manifests=[commit.manifest for commit in batch])
            for commit in batch:
                for key in [*run.store.list(keys.folder(commit.manifest))]:
                    if CheckpointKey.parse(key):  # what else lies there is somebody's
                        run.store.delete(key)
