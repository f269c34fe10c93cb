"""What nobody will ever read is found by the journal, and nothing else is taken for it."""

from collections.abc import Iterator

import pytest
from tests.memory import MemoryStore

from headway.checkpoint.retention import Retention
from headway.errors import DamageError
from headway.runs import Committed, Decided, Ended, Holder, Pruned, Run, keys
from headway.runs.garbage import garbage

HOLDER = Holder(host="h", pid=1, started=1, launch="x")


class Worked:
    """A run on which attempts worked, by hand."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.run = Run(self.store, "run")
        self.attempt = 0

    def claim(self) -> None:
        """The next attempt begins."""
        self.attempt = self.run.journal.claim(lambda: None, holder=HOLDER, recipe="r").seq

    def write(self, tokens: int) -> str:
        """A save that got as far as its shard and its manifest; returns the manifest's key."""
        prefix = keys.checkpoint("run", tokens, self.attempt)
        self.store.put(f"{prefix}00000-of-00001.safetensors", [b"shard"])
        self.store.put(f"{prefix}manifest.json", [b"{}"])
        return f"{prefix}manifest.json"

    def save(self, tokens: int) -> Committed:
        """A whole save."""
        return self.run.journal.append(
            Committed, self.attempt, tokens=tokens, manifest=self.write(tokens), sha256="0", bytes=5
        )

    def end(self) -> None:
        """The attempt says that it ended."""
        self.run.journal.append(Ended, self.attempt, outcome="preempted", reason="asked", tokens=0)

    def roll_back(self, restored: int) -> None:
        """The attempt decides to go back."""
        self.run.journal.append(
            Decided, self.attempt, action="rollback", reason="spike", skip_from=0, skip_to=1, restored=restored
        )

    @property
    def garbage(self) -> dict[str, str]:
        """Why each checkpoint is garbage, by its folder, as somebody sees it who comes anew."""
        found = [*garbage(Run(self.store, "run"))]
        objects = [key for folder in {keys.folder(each.key) for each in found} for key in self.store.list(folder)]
        assert sorted(each.key for each in found) == sorted(objects)  # a checkpoint is garbage whole
        return {keys.folder(each.key): each.reason for each in found}


def test_an_unfinished_save_of_an_attempt_that_was_followed_is_garbage() -> None:
    """What a killed attempt wrote and never committed goes once the next has claimed the run; its commits stay."""
    worked = Worked()
    worked.claim()
    worked.save(10)
    left = keys.folder(worked.write(20))
    assert worked.garbage == {}
    worked.claim()
    worked.write(20)
    assert worked.garbage == {left: "attempt 1 never committed it"}


def test_what_an_open_attempt_writes_is_kept() -> None:
    """The newest attempt may yet commit what it wrote, however old that is."""
    worked = Worked()
    worked.claim()
    worked.claim()
    worked.write(20)
    assert worked.garbage == {}


def test_an_unfinished_save_of_an_attempt_that_ended_is_garbage() -> None:
    """Whoever said that it ended commits nothing more, so nobody need come after it."""
    worked = Worked()
    worked.claim()
    worked.save(10)
    left = keys.folder(worked.write(20))
    worked.end()
    assert worked.garbage == {left: "attempt 1 never committed it"}


def test_what_retention_gave_up_and_left_is_garbage() -> None:
    """A checkpoint that the journal gave up goes, of a closed attempt or of the open one; the others stay."""
    worked = Worked()
    worked.claim()
    old = worked.save(10)
    worked.claim()
    own, kept = worked.save(20), worked.save(30)
    worked.run.journal.append(Pruned, worked.attempt, manifests=[old.manifest, own.manifest])
    assert worked.garbage == {
        keys.folder(old.manifest): "given up by retention",
        keys.folder(own.manifest): "given up by retention",
    }
    assert [*worked.run.history().commits] == [kept]


def test_what_a_roll_back_undid_is_kept_until_it_is_given_up() -> None:
    """A commit that does not count any more is still named; retention gives it up first, and then it is garbage."""
    worked = Worked()
    worked.claim()
    worked.save(10)
    undone = worked.save(20)
    worked.roll_back(10)
    worked.claim()
    assert worked.garbage == {}
    assert Retention(5).surplus(worked.run) == [undone]
    Retention(5).prune(worked.run, worked.attempt)
    worked.store.put(undone.manifest, [b"{}"])  # as if the machine had gone off before it was deleted
    assert worked.garbage == {keys.folder(undone.manifest): "given up by retention"}


@pytest.mark.parametrize("victim", [1, 2, 3, 4])
def test_nothing_is_garbage_where_the_journal_is_damaged(victim: int) -> None:
    """A damaged entry may have named anything: the entry is said, and nothing is given."""
    worked = Worked()
    worked.claim()
    worked.save(10)
    worked.write(20)
    worked.claim()
    worked.save(30)
    assert worked.garbage
    worked.store.objects[keys.entry("run", victim)] = b"rubbish"
    with pytest.raises(DamageError, match=f"run run: journal entry {victim} is not readable .* nothing is garbage"):
        next(garbage(Run(worked.store, "run")))


def test_a_hole_in_the_journal_makes_nothing_garbage() -> None:
    """An entry that is missing may have been a commit."""
    worked = Worked()
    worked.claim()
    worked.save(10)
    worked.claim()
    worked.store.delete(keys.entry("run", 2))
    with pytest.raises(DamageError, match="journal entry 2 is missing"):
        next(garbage(Run(worked.store, "run")))


@pytest.mark.parametrize("name", ["notes.txt", "mine/shard.safetensors", "2026-07/x", "000000000000010-00000001.bak/x"])
def test_what_no_attempt_wrote_is_left_alone(name: str) -> None:
    """Somebody's own file among the checkpoints is nobody's garbage."""
    worked = Worked()
    worked.claim()
    worked.store.put(f"{keys.checkpoints('run')}{name}", [b"mine"])
    worked.claim()
    worked.end()
    assert worked.garbage == {}


def test_a_run_of_another_name_is_not_looked_at() -> None:
    """`run` is not `run-2`, although its name begins so."""
    worked = Worked()
    worked.claim()
    worked.store.put(f"{keys.checkpoint('run-2', 10, 1)}manifest.json", [b"{}"])
    worked.claim()
    assert worked.garbage == {}


def test_a_save_that_ends_between_listing_and_reading_is_kept() -> None:
    """What is committed while it is looked for is named by the journal that is read afterwards."""

    class Meanwhile(MemoryStore):
        """A store in which the save is committed, and the run claimed anew, once its objects were listed."""

        def list(self, prefix: str, after: str = "") -> Iterator[str]:
            found = [*super().list(prefix, after)]
            if prefix == keys.checkpoints("run") and len(worked.run.journal.entries) == 1:
                worked.run.journal.append(Committed, 1, tokens=10, manifest=manifest, sha256="0", bytes=5)
                worked.claim()
            return iter(found)

    worked = Worked()
    worked.claim()
    manifest = worked.write(10)
    there = Meanwhile()
    there.objects = worked.store.objects
    assert [*garbage(Run(there, "run"))] == []
    assert len(worked.run.journal.entries) == 3
