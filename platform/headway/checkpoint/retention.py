"""Retention: which checkpoints are given up. Given up in the journal first, and only then deleted."""

from dataclasses import dataclass, field

from headway.checkpoint.stored import StoredCheckpoint
from headway.store import Committed, Pruned, Run


@dataclass
class Retention:
    """What is kept: the newest `keep` sound checkpoints, and one that a roll-back can return to."""

    keep: int
    reach: int = 0
    """How far back a roll-back may go [tokens]; 0: there are none."""
    distrusted: set[str] = field(default_factory=set)
    """Manifests of checkpoints that were found damaged: they never count as kept."""

    def surplus(self, run: Run) -> list[Committed]:
        """Commits that can be given up."""
        commits = run.history().commits
        sound, reached, given_up = 0, not self.reach, []
        for commit in reversed(commits):
            if sound >= self.keep and reached:
                given_up.append(commit)
            elif commit.manifest not in self.distrusted and StoredCheckpoint(run.store, commit).complete():
                sound += 1
                reached = reached or commit.tokens <= commits[-1].tokens - self.reach
        return given_up

    def prune(self, run: Run, attempt: int) -> None:
        """Give up the surplus, on behalf of `attempt`."""
        if given_up := self.surplus(run):
            run.journal.append(Pruned, attempt, manifests=[commit.manifest for commit in given_up])
            for commit in given_up:
                prefix = commit.manifest.rpartition("/")[0] + "/"
                for key in [*run.store.list(prefix)]:
                    run.store.delete(key)
