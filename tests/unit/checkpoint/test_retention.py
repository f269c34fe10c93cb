"""Retention keeps so many sound checkpoints, and says so before it deletes."""

import pytest
from tests.unit.checkpoint.conftest import Keep

from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.retention import Retention
from headway.objectstore.folder import FolderStore
from headway.runs import Pruned, Run


class PowerCutError(Exception):
    """The machine went off."""


class CutStore(FolderStore):
    """A store on a machine that goes off at the first deletion. A double: the test cannot pull the plug."""

    def delete(self, key: str) -> None:
        """Never gets that far."""
        raise PowerCutError(key)


def test_the_newest_are_kept(keeping: Keep, store: FolderStore) -> None:
    """Of five checkpoints the newest `keep` stay, whole, and no object of the others does."""
    keeper = keeping(keep=2)
    for tokens in (64, 128, 192, 256, 320):
        keeper.save(tokens)
    commits = keeper.run.history().commits
    assert [commit.tokens for commit in commits] == [256, 320]
    assert all(StoredCheckpoint(store, commit).complete() for commit in commits)
    assert len([*store.list("runs/run/checkpoints/")]) == 4


@pytest.mark.parametrize("what", ["shard", "short shard", "manifest", "changed manifest"])
def test_an_incomplete_checkpoint_is_never_counted_as_kept(keeping: Keep, store: FolderStore, what: str) -> None:
    """A checkpoint that lost a shard, a byte or its manifest does not push out a complete one."""
    keeper = keeping(keep=10)
    commits = [keeper.save(tokens) for tokens in (64, 128, 192)]
    newest = StoredCheckpoint(store, commits[-1])
    shard, manifest = store.root / newest.manifest.shards[0].key, store.root / commits[-1].manifest
    match what:
        case "shard":
            shard.unlink()
        case "short shard":
            shard.write_bytes(shard.read_bytes()[:-1])
        case "manifest":
            manifest.unlink()
        case _:
            manifest.write_bytes(manifest.read_bytes() + b" ")
    assert Retention(1).surplus(keeper.run) == commits[:1]
    assert Retention(2).surplus(keeper.run) == []


def test_nothing_is_written_where_nothing_is_given_up(keeping: Keep) -> None:
    """A run with no more than it may keep gets no journal entry."""
    keeper = keeping(keep=2)
    keeper.save(64)
    before = len(keeper.run.journal.read())
    Retention(1).prune(keeper.run, keeper.attempt)
    assert len(keeper.run.journal.read()) == before


def test_a_checkpoint_is_given_up_in_the_journal_before_it_is_deleted(keeping: Keep, store: FolderStore) -> None:
    """When the power fails at the first deletion, the journal has it already, and no reader counts on it."""
    keeper = keeping(keep=10)
    old, new = keeper.save(64), keeper.save(128)
    cut = Run(CutStore(store.root), "run")
    with pytest.raises(PowerCutError):
        Retention(1).prune(cut, keeper.attempt)
    history = keeper.run.history()
    assert history.commits == [new]
    assert history.pruned == {old.manifest}
    assert isinstance(keeper.run.journal.read()[-1], Pruned)
    assert StoredCheckpoint(store, old).complete()


def test_one_that_a_roll_back_can_return_to_is_kept(keeping: Keep) -> None:
    """With a reach of 150 tokens, what is given up is older than the newest that lies so far back."""
    keeper = keeping(keep=10)
    commits = [keeper.save(tokens) for tokens in (64, 128, 192, 256, 320)]
    assert Retention(1).surplus(keeper.run) == commits[3::-1]
    assert Retention(1, reach=150).surplus(keeper.run) == commits[:1]


def test_a_damaged_checkpoint_does_not_count_as_kept(keeping: Keep) -> None:
    """A checkpoint that a restore found damaged, though complete, does not push out a sound one."""
    keeper = keeping(keep=10)
    commits = [keeper.save(tokens) for tokens in (64, 128, 192)]
    assert Retention(2, distrusted={commits[1].manifest}).surplus(keeper.run) == []
