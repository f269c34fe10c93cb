"""What lies in a run's store and will never be read: saves that came to nothing, and what retention left behind.

Safe beside any number of writers, without clocks. An attempt is *closed* once a newer attempt has claimed the run or
its own end is recorded: whatever write of it is still under way, the journal will refuse its entry (it was made for a
place in the journal that is taken by now). So what a closed attempt wrote and no entry names, none will ever name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from headway.errors import DamageError
from headway.runs import keys
from headway.runs.entries import Claimed, Committed, Ended, Pruned
from headway.runs.hashlog import Damaged
from headway.runs.run import Run


@dataclass(frozen=True)
class Garbage:
    """One object that can be deleted, and why."""

    key: str
    reason: str


def garbage(run: Run) -> Iterator[Garbage]:
    """The objects of a run that nobody will ever read, in order.

    Raises:
        DamageError: an entry of the journal is damaged, and may have named any of them.
    """
    there = list(run.store.list(keys.checkpoints(run.name)))  # before the journal: see below
    entries = run.journal.read()
    if damaged := [entry for entry in entries if isinstance(entry, Damaged)]:
        raise DamageError(f"run {run.name}: {damaged[0].reason}; what it named is not known, so nothing is garbage")
    # Whatever was listed had been written by an attempt whose claim stands in the journal by now.
    newest = max((entry.seq for entry in entries if isinstance(entry, Claimed)), default=0)
    ended = {entry.attempt for entry in entries if isinstance(entry, Ended)}
    given_up = {keys.folder(m) for entry in entries if isinstance(entry, Pruned) for m in entry.manifests}
    named = {keys.folder(entry.manifest) for entry in entries if isinstance(entry, Committed)}
    for key in there:
        prefix, attempt = keys.folder(key), keys.attempt_of(key)
        if prefix in given_up:
            yield Garbage(key, "given up by retention")
        elif prefix not in named and attempt is not None and (attempt < newest or attempt in ended):
            yield Garbage(key, f"attempt {attempt} never committed it")
