"""Finds garbage: objects of a run that nobody will read, from failed saves and from retention.

Safe beside concurrent writers, without clocks. An attempt is *closed* once a newer attempt has claimed the run or its
own end is recorded. The journal refuses every later entry of a closed attempt, so objects that it wrote and no entry
names will never be named.

Only keys that a process of the run makes are garbage. What else lies among them is somebody's, and stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from headway.errors import DamageError
from headway.runs import keys
from headway.runs.entries import Claimed, Committed, Ended, Pruned
from headway.runs.hashlog import Damaged
from headway.runs.keys import CheckpointKey
from headway.runs.run import Run


@dataclass(frozen=True)
class Garbage:
    """One object that can be deleted, and the reason."""

    key: str
    reason: str
    tokens: int
    """Position of its checkpoint [tokens]."""


def find_garbage(run: Run) -> Iterator[Garbage]:
    """The garbage of a run, in order of keys.

    Raises:
        DamageError: a journal entry is damaged, and may have named any object.
    """
    stored_keys = list(run.store.list(keys.checkpoints(run.name)))  # before the journal: see below
    entries = run.journal.read()
    if damaged := [entry for entry in entries if isinstance(entry, Damaged)]:
        raise DamageError(f"run {run.name}: {damaged[0].reason}; any object may be one that it named")
    if run.journal.strays:
        raise DamageError(f"{run.journal.strays[0]}: no entry leads to it; any object may be one that it names")
    # An attempt claims the run before it writes, so the journal holds the claims of all listed objects by now.
    newest = max((entry.seq for entry in entries if isinstance(entry, Claimed)), default=0)
    ended = {entry.attempt for entry in entries if isinstance(entry, Ended)}
    pruned = {keys.folder(m) for entry in entries if isinstance(entry, Pruned) for m in entry.manifests}
    named = {keys.folder(entry.manifest) for entry in entries if isinstance(entry, Committed)}
    for key in stored_keys:
        part = CheckpointKey.parse(key)
        if part is None:  # no process of this run wrote it
            continue
        if part.prefix in pruned:
            yield Garbage(key, "pruned by retention", part.tokens)
        elif part.prefix not in named and (part.attempt < newest or part.attempt in ended):
            yield Garbage(key, f"attempt {part.attempt} never committed it", part.tokens)
