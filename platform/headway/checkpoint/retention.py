"""Retention: which checkpoints are given up. Given up in the journal first, and only then deleted."""

from headway.checkpoint.stored import StoredCheckpoint
from headway.store import Committed, Pruned, Run


def surplus(run: Run, keep: int) -> list[Committed]:
    """Commits older than the newest `keep` complete ones; a damaged one never counts as kept."""
    complete, given_up = 0, []
    for commit in reversed(run.history().commits):
        if complete >= keep:
            given_up.append(commit)
        elif StoredCheckpoint(run.store, commit).complete():
            complete += 1
    return given_up


def prune(run: Run, attempt: int, keep: int) -> None:
    """Give up the surplus, on behalf of `attempt`."""
    if given_up := surplus(run, keep):
        run.journal.append(Pruned, attempt, manifests=[commit.manifest for commit in given_up])
        for commit in given_up:
            prefix = commit.manifest.rpartition("/")[0] + "/"
            for key in [*run.store.list(prefix)]:
                run.store.delete(key)
