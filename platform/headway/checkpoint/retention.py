"""Retention: which checkpoints are given up. Given up in the journal first, and only then deleted."""

from dataclasses import dataclass, field

from headway.checkpoint.reader import StoredCheckpoint
from headway.runs import Committed, Pruned, Run, keys


@dataclass
class Retention:
    """What is kept: the newest `keep` sound checkpoints, and one that a roll-back can return to."""

    keep: int
    reach: int = 0
    """How far back a roll-back may go [tokens]; 0: there are none."""
    distrusted: set[str] = field(default_factory=set)
    """Manifests of checkpoints that were found damaged: they never count as kept."""
    _complete: set[str] = field(default_factory=set)
    """Manifests of checkpoints that were seen to be all there."""

    def surplus(self, run: Run) -> list[Committed]:
        """Commits that can be given up: those that a roll-back undid, and the old ones."""
        history = run.history()
        commits, given_up = history.commits, history.undone
        sound, reached = 0, not self.reach
        for commit in reversed(commits):
            if sound >= self.keep and reached:
                given_up.append(commit)
            elif self._counts(run, commit):
                sound += 1
                reached = reached or commit.tokens <= commits[-1].tokens - self.reach
        return given_up

    def _counts(self, run: Run, commit: Committed) -> bool:
        """Whether a checkpoint is one to keep; what was seen once is not asked for again."""
        if commit.manifest in self.distrusted:
            return False
        if commit.manifest not in self._complete and StoredCheckpoint(run.store, commit).complete():
            self._complete.add(commit.manifest)
        return commit.manifest in self._complete

    def prune(self, run: Run, attempt: int) -> None:
        """Give up the surplus, on behalf of `attempt`."""
        if given_up := self.surplus(run):
            run.journal.append(Pruned, attempt, manifests=[commit.manifest for commit in given_up])
            for commit in given_up:
                for key in [*run.store.list(keys.folder(commit.manifest))]:
                    run.store.delete(key)
