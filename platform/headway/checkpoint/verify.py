"""Verification of a whole run: every journal entry, the recipe, and every byte of every checkpoint that counts."""

from collections.abc import Iterator
from dataclasses import dataclass

from headway.checkpoint.reader import StoredCheckpoint
from headway.errors import DamageError
from headway.runs import Journal, Run, fold


@dataclass(frozen=True)
class Finding:
    """One damaged thing: what it is, and what is wrong with it."""

    what: str
    manifest: str | None = None
    """Key of the manifest of the checkpoint that it is about, if it is about one."""


def verify(run: Run) -> Iterator[Finding | int]:
    """Check everything; yields findings, and between them the number of bytes read so far in this step."""
    journal = Journal(run.store, run.name, packed=False)  # the entries themselves, not their copies
    history = fold(journal.read())
    for damaged in history.damaged:
        yield Finding(damaged.reason)
    for reason in journal.unlike_packs():
        yield Finding(reason)
    try:
        run.recipe()
    except DamageError as error:
        yield Finding(str(error))
    for commit in history.commits:
        for found in StoredCheckpoint(run.store, commit).damage():
            if isinstance(found, int):
                yield found
            elif commit.manifest not in run.history().pruned:  # given up while it was read: no damage
                yield Finding(f"checkpoint at {commit.tokens:,} tokens: {found}", commit.manifest)


def size(run: Run) -> int:
    """Bytes that `verify` will read."""
    return sum(commit.bytes for commit in run.history().commits)
