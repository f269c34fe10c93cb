"""Garbage is found by the journal, and nothing else counts as garbage."""

from collections.abc import Iterator

import pytest
from tests.memory import MemoryStore

from headway.checkpoint.retention import Retention
from headway.errors import DamageError
from headway.runs import Committed, Decided, Ended, Holder, Pruned, Run, keys
from headway.runs.garbage import find_garbage

HOLDER = Holder(host="h", pid=1, started=1, launch="x")


class RunBuilder:
    """Writes a run entry by entry."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.run = Run(self.store, "run")
        self.attempt = 0

    def claim(self) -> None:
        """Start the next attempt."""
        self.attempt = self.run.journal.claim(lambda: None, holder=HOLDER, recipe="r").seq

    def write(self, tokens: int) -> str:
        """Write a shard and a manifest without a commit; returns the manifest's key."""
        prefix = keys.checkpoint("run", tokens, self.attempt)
        self.store.put(f"{prefix}00000-of-00001.safetensors", [b"shard"])
        self.store.put(f"{prefix}manifest.json", [b"{}"])
        return f"{prefix}manifest.json"

    def save(self, tokens: int) -> Committed:
        """Write and commit a checkpoint."""
        return self.run.journal.append(
            Committed, self.attempt, tokens=tokens, manifest=self.write(tokens), sha256="0" * 64, bytes=5
        )

    def end(self) -> None:
        """Record the end of the attempt."""
        self.run.journal.append(Ended, self.attempt, outcome="preempted", reason="asked", tokens=0)

    def roll_back(self, restored: int) -> None:
        """Record a roll-back."""
        self.run.journal.append(
            Decided, self.attempt, action="rollback", reason="spike", skip_from=0, skip_to=1, restored=restored
        )

    @property
    def garbage(self) -> dict[str, str]:
        """Reasons of the checkpoints that a new reader finds to be garbage, by folder."""
        found = [*find_garbage(Run(self.store, "run"))]
        objects = [key for folder in {keys.folder(each.key) for each in found} for key in self.store.list(folder)]
        assert sorted(each.key for each in found) == sorted(objects)  # all objects of a checkpoint or none
        return {keys.folder(each.key): each.reason for each in found}


def test_an_uncommitted_save_is_garbage_after_a_newer_claim() -> None:
    """A killed attempt's uncommitted objects are garbage; its commits stay."""
    built = RunBuilder()
    built.claim()
    built.save(10)
    left = keys.folder(built.write(20))
    assert built.garbage == {}
    built.claim()
    built.write(20)
    assert built.garbage == {left: "attempt 1 never committed it"}


def test_an_open_attempt_has_no_garbage() -> None:
    """The newest attempt may still commit its objects, however old they are."""
    built = RunBuilder()
    built.claim()
    built.claim()
    built.write(20)
    assert built.garbage == {}


def test_an_uncommitted_save_is_garbage_after_the_end() -> None:
    """An attempt commits nothing after its recorded end."""
    built = RunBuilder()
    built.claim()
    built.save(10)
    left = keys.folder(built.write(20))
    built.end()
    assert built.garbage == {left: "attempt 1 never committed it"}


def test_pruned_checkpoints_are_garbage() -> None:
    """Whether their attempt is closed or open; the other checkpoints stay."""
    built = RunBuilder()
    built.claim()
    old = built.save(10)
    built.claim()
    own, kept = built.save(20), built.save(30)
    built.run.journal.append(Pruned, built.attempt, manifests=[old.manifest, own.manifest])
    assert built.garbage == {
        keys.folder(old.manifest): "pruned by retention",
        keys.folder(own.manifest): "pruned by retention",
    }
    assert [*built.run.history().commits] == [kept]


def test_rolled_back_checkpoints_are_kept_until_they_are_pruned() -> None:
    """The journal still names them, so retention prunes them first."""
    built = RunBuilder()
    built.claim()
    built.save(10)
    undone = built.save(20)
    built.roll_back(10)
    built.claim()
    assert built.garbage == {}
    assert Retention(5).surplus(built.run) == [undone]
    Retention(5).prune(built.run, built.attempt)
    built.store.put(undone.manifest, [b"{}"])  # as if the node had died before it was deleted
    assert built.garbage == {keys.folder(undone.manifest): "pruned by retention"}


@pytest.mark.parametrize("victim", [1, 2, 3, 4])
def test_nothing_is_garbage_where_the_journal_is_damaged(victim: int) -> None:
    """A damaged entry may have named any object, so the error names the entry."""
    built = RunBuilder()
    built.claim()
    built.save(10)
    built.write(20)
    built.claim()
    built.save(30)
    assert built.garbage
    built.store.objects[keys.journal_entry("run", victim)] = b"rubbish"
    with pytest.raises(DamageError, match=f"run run: journal entry {victim} is unreadable; any object may be one"):
        next(find_garbage(Run(built.store, "run")))


def test_a_hole_in_the_journal_makes_nothing_garbage() -> None:
    """A missing entry may have been a commit."""
    built = RunBuilder()
    built.claim()
    built.save(10)
    built.claim()
    built.store.delete(keys.journal_entry("run", 2))
    with pytest.raises(DamageError, match="journal entry 2 is missing"):
        next(find_garbage(Run(built.store, "run")))


@pytest.mark.parametrize("name", ["notes.txt", "mine/shard.safetensors", "2026-07/x", "000000000000010-00000001.bak/x"])
def test_foreign_files_are_no_garbage(name: str) -> None:
    """A user's own file among the checkpoints stays."""
    built = RunBuilder()
    built.claim()
    built.store.put(f"{keys.checkpoints('run')}{name}", [b"mine"])
    built.claim()
    built.end()
    assert built.garbage == {}


def test_a_run_with_a_longer_name_is_ignored() -> None:
    """`run-2` begins with `run`, and is another run."""
    built = RunBuilder()
    built.claim()
    built.store.put(f"{keys.checkpoint('run-2', 10, 1)}manifest.json", [b"{}"])
    built.claim()
    assert built.garbage == {}


def test_a_save_that_commits_during_the_search_is_kept() -> None:
    """The journal is read after the listing, so it names what was committed meanwhile."""

    class Meanwhile(MemoryStore):
        """Commits the save and claims the run again once its objects were listed."""

        def list(self, prefix: str, after: str = "") -> Iterator[str]:
            found = [*super().list(prefix, after)]
            if prefix == keys.checkpoints("run") and len(built.run.journal.entries) == 1:
                built.run.journal.append(Committed, 1, tokens=10, manifest=manifest, sha256="0" * 64, bytes=5)
                built.claim()
            return iter(found)

    built = RunBuilder()
    built.claim()
    manifest = built.write(10)
    store = Meanwhile()
    store.objects = built.store.objects
    assert [*find_garbage(Run(store, "run"))] == []
    assert len(built.run.journal.entries) == 3
