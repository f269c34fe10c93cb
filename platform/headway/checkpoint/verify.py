"""Verifies a whole run: every journal entry, the recipe, and every byte of every checkpoint that is not pruned.

Also finds what lies among its objects and is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from headway.checkpoint.reader import StoredCheckpoint
from headway.errors import DamageError, MissingObject, UnknownKindError
from headway.runs import Journal, Run, fold, keys
from headway.runs.ledger import LEDGER_BYTES
from headway.runs.liveness import HEARTBEAT_BYTES
from headway.runs.pack import PACK_BYTES
from headway.runs.run_log import LOG_CHUNK_BYTES

LIMITS = {"heartbeat.json": HEARTBEAT_BYTES, "ledger": LEDGER_BYTES, "log": LOG_CHUNK_BYTES, "packs": PACK_BYTES}
"""Longest advisory objects [bytes], by the name that follows the prefix of a run. Others are read and checked whole."""


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
    for reason in (*journal.check_packs(), *_strays(run, journal)):
        yield Finding(reason)
    try:
        run.recipe()
    except (DamageError, MissingObject, UnknownKindError) as error:
        yield Finding(str(error))
    for commit in history.commits:
        for damage in StoredCheckpoint(run.store, commit).damage():
            if isinstance(damage, int):
                yield damage
            elif commit.manifest not in run.history().pruned:  # else it was pruned while it was read: no damage
                yield Finding(f"checkpoint at {commit.tokens:,} tokens: {damage}", commit.manifest)


def _strays(run: Run, journal: Journal) -> Iterator[str]:
    """What lies below the prefix of a run and was not written by one of its processes, or so that nobody reads it."""
    for key in journal.strays:
        yield f"{key}: no journal entry leads to it"
    prefix = keys.run(run.name)
    for key, length in run.store.sizes(prefix):
        limit = LIMITS.get(key.removeprefix(prefix).partition("/")[0], length)
        if not keys.is_of_run(run.name, key):
            yield f"{key}: is no object of a run"
        elif length > limit:
            yield f"{key}: is {length:,} bytes long, and not read: none is longer than {limit:,} bytes"
    for place, problem in run.store.strays(keys.run(run.name)):
        yield f"{place}: {problem}"


def size(run: Run) -> int:
    """The number of bytes that `verify` reads."""
    return sum(commit.bytes for commit in run.history().commits)
