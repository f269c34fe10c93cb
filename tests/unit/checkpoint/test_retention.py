"""Retention keeps the newest sound checkpoints, and records in the journal what it prunes before it deletes."""

import pytest
from tests.unit.checkpoint.conftest import NewRun, SavingRun

from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.retention import Retention
from headway.objectstore.folder import FolderStore
from headway.runs import Decided, Pruned, Run


class PowerCutError(Exception):
    """Stands for a power failure."""


class CutStore(FolderStore):
    """A store whose machine loses power at the first deletion. A double, because a test cannot cut the power."""

    def delete(self, key: str) -> None:
        """Fail."""
        raise PowerCutError(key)


def test_the_newest_are_kept(new_run: NewRun, store: FolderStore) -> None:
    """The newest `keep` checkpoints stay, complete; all objects of the others are deleted."""
    saving = new_run(keep=2)
    for tokens in (64, 128, 192, 256, 320):
        saving.save(tokens)
    commits = saving.run.history().commits
    assert [commit.tokens for commit in commits] == [256, 320]
    assert all(StoredCheckpoint(store, commit).is_complete() for commit in commits)
    assert len([*store.list("runs/run/checkpoints/")]) == 4


@pytest.mark.parametrize("what", ["shard", "short shard", "manifest", "changed manifest"])
def test_an_incomplete_checkpoint_is_never_counted_as_kept(new_run: NewRun, store: FolderStore, what: str) -> None:
    """A checkpoint that lost a shard, a byte or its manifest does not push out a complete one."""
    saving = new_run(keep=10)
    commits = [saving.save(tokens) for tokens in (64, 128, 192)]
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
    assert Retention(1).surplus(saving.run) == commits[:1]
    assert Retention(2).surplus(saving.run) == []


def test_without_a_surplus_nothing_is_written(new_run: NewRun) -> None:
    """A run with at most `keep` checkpoints gets no journal entry."""
    saving = new_run(keep=2)
    saving.save(64)
    before = len(saving.run.journal.read())
    Retention(1).prune(saving.run, saving.attempt)
    assert len(saving.run.journal.read()) == before


def test_the_journal_records_pruning_before_the_deletion(new_run: NewRun, store: FolderStore) -> None:
    """If the power fails at the first deletion, the journal has the entry, and readers ignore the checkpoint."""
    saving = new_run(keep=10)
    old, new = saving.save(64), saving.save(128)
    cut = Run(CutStore(store.root), "run")
    with pytest.raises(PowerCutError):
        Retention(1).prune(cut, saving.attempt)
    history = saving.run.history()
    assert history.commits == [new]
    assert history.pruned == {old.manifest}
    assert isinstance(saving.run.journal.read()[-1], Pruned)
    assert StoredCheckpoint(store, old).is_complete()


def test_a_checkpoint_for_a_rollback_is_kept(new_run: NewRun) -> None:
    """With a horizon of 150 tokens, the newest checkpoint at least that far back is kept."""
    saving = new_run(keep=10)
    commits = [saving.save(tokens) for tokens in (64, 128, 192, 256, 320)]
    assert Retention(1).surplus(saving.run) == commits[3::-1]
    assert Retention(1, horizon=150).surplus(saving.run) == commits[:1]


def test_a_damaged_checkpoint_does_not_count_as_kept(new_run: NewRun) -> None:
    """A damaged checkpoint does not push out a sound one, even if it is complete."""
    saving = new_run(keep=10)
    commits = [saving.save(tokens) for tokens in (64, 128, 192)]
    assert Retention(2, damaged={commits[1].manifest}).surplus(saving.run) == []


def skip(saving: SavingRun, tokens: int) -> None:
    """Decide to skip the batch at `tokens`."""
    saving.run.journal.append(
        Decided, saving.attempt, action="skip", reason="nan", skip_from=tokens, skip_to=tokens + 64
    )


def test_the_checkpoint_before_trouble_is_kept_while_trouble_lasts(new_run: NewRun) -> None:
    """However often a bad batch comes after a good one: the newest from before the first of them stays."""
    saving = new_run(keep=2)
    saving.save(64)
    before = saving.save(128)
    for tokens in range(128, 1024, 128):  # a bad batch, a good one, a checkpoint
        skip(saving, tokens)
        saving.save(tokens + 128)
    kept = saving.run.history().commits
    assert [commit.tokens for commit in kept] == [128, 896, 1024]
    assert kept[0] == before


def test_trouble_is_over_after_as_many_checkpoints_as_are_kept(new_run: NewRun) -> None:
    """Then the checkpoint before it goes; pruned ones count, too, and trouble after that is new trouble."""
    saving = new_run(keep=2)
    saving.save(64)
    skip(saving, 64)
    saving.save(192)
    skip(saving, 192)
    saving.save(320)
    assert [commit.tokens for commit in saving.run.history().commits] == [64, 192, 320]
    saving.save(384)
    assert [commit.tokens for commit in saving.run.history().commits] == [320, 384]
    saving.save(448)
    skip(saving, 448)
    saving.save(576)
    skip(saving, 576)
    saving.save(704)
    saving.save(768)
    assert [commit.tokens for commit in saving.run.history().commits] == [704, 768]


def test_trouble_before_the_last_is_forgotten_when_its_checkpoints_are_gone(new_run: NewRun) -> None:
    """Two troubles with sound checkpoints between: the second keeps its own checkpoint, not that of the first."""
    saving = new_run(keep=2)
    for tokens in (64, 128, 192, 256, 320):
        saving.save(tokens)
        if tokens == 64:
            skip(saving, 64)
    skip(saving, 320)
    saving.save(448)
    skip(saving, 448)
    saving.save(576)
    assert [commit.tokens for commit in saving.run.history().commits] == [320, 448, 576]


def test_a_damaged_checkpoint_from_before_trouble_is_not_the_one_that_stays(new_run: NewRun) -> None:
    """The one before it is."""
    saving = new_run(keep=10)
    commits = [saving.save(tokens) for tokens in (64, 128)]
    for tokens in (128, 256, 384):
        skip(saving, tokens)
        commits.append(saving.save(tokens + 128))
    assert Retention(2, damaged={commits[1].manifest}).surplus(saving.run) == [commits[2], commits[1]]


def test_what_a_person_went_back_from_is_no_trouble_any_more(new_run: NewRun) -> None:
    """The bad batches after the checkpoint are forgotten with the checkpoints after it."""
    saving = new_run(keep=2)
    saving.save(64)
    skip(saving, 64)
    skip(saving, 192)
    saving.run.journal.append(
        Decided, saving.attempt, action="rollback", reason="", skip_from=64, skip_to=64, restored=64, by="a@b"
    )
    saving.save(128)
    saving.save(256)
    assert [commit.tokens for commit in saving.run.history().commits] == [128, 256]
