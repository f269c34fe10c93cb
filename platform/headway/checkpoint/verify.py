"""Verifies a whole run: every journal entry, the recipe, and every byte of every checkpoint that is not pruned."""

from collections.abc import Iterator
from dataclasses import dataclass

from headway.checkpoint.reader import StoredCheckpoint
from headway.errors import DamageError, UnknownKindError
from headway.runs import Journal, Run, fold


@dataclass(frozen=True)
class Finding:
    """One finding: what is damaged, and how."""

    problem: str
    manifest: str | None = None
    """Key of the damaged checkpoint's manifest, if a checkpoint is damaged."""


def verify(run: Run) -> Iterator[Finding | int]:
    """Verify a run; yields findings, and the number of bytes after each read."""
    journal = Journal(run.store, run.name, packed=False)  # read the entries themselves, not their packed copies
    history = fold(journal.read())
    for entry in history.damaged:
        yield Finding(entry.reason)
    for reason in journal.check_packs():
        yield Finding(reason)
    try:
        run.recipe()
    except (DamageError, UnknownKindError) as error:
        yield Finding(str(error))
    for commit in history.commits:
        for damage in StoredCheckpoint(run.store, commit).damage():
            if isinstance(damage, int):
                yield damage
            elif commit.manifest not in run.history().pruned:  # else it was pruned while it was read: no damage
                yield Finding(f"checkpoint at {commit.tokens:,} tokens: {damage}", commit.manifest)


def size(run: Run) -> int:
    """The number of bytes that `verify` reads."""
    return sum(commit.bytes for commit in run.history().commits)
