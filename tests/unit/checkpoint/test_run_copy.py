"""A copied run equals the original, is verified on the way, becomes visible once complete, and can be resumed."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tests.memory import MemoryStore
from tests.unit.cli.story import plan

from headway import recipe as recipes
from headway.checkpoint.collectives import Collectives
from headway.checkpoint.commit import Lineage
from headway.checkpoint.manifest import Environment, Progress
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.restore import restore
from headway.checkpoint.retention import Retention
from headway.checkpoint.run_copy import copy_run, size
from headway.checkpoint.saver import Saver
from headway.checkpoint.verify import verify
from headway.errors import DamageError, StoreError, UsageError
from headway.objectstore import Buffer, Store
from headway.objectstore.folder import FolderStore
from headway.runs import Ended, Holder, Run, keys

PLAN = plan()
ENVIRONMENT = Environment(device="d", precision="fp32", threads=1, torch="0", headway="0")


class Source:
    """A run with a recipe, a ledger, a log, and three checkpoints, the oldest of them pruned."""

    def __init__(self, store: Store, collectives: Collectives, name: str = "run", pid: int = 1) -> None:
        self.run, self.collectives = Run(store, name), collectives
        self.run.freeze(PLAN)
        self.saver, self.attempt = self.claim(pid)
        for tokens in (64, 128, 192):
            self.save(tokens)
        store.put(keys.ledger(name, self.attempt), [b"{}\n"])
        store.put(keys.log_chunk(name, self.attempt, 0), [b'{"event": "step.done"}\n'])

    def claim(self, pid: int) -> tuple[Saver, int]:
        """Claim the run; returns a saver that keeps two checkpoints, and the attempt."""
        holder = Holder(host="elsewhere", pid=pid, started=1, launch=f"{pid}")
        attempt = self.run.claim(holder, PLAN, "data", take_over=True).seq
        lineage = Lineage(attempt, recipes.digest(PLAN), "data", ENVIRONMENT)
        saver = Saver(self.run, lineage, self.collectives, retention=Retention(2), on_commit=lambda *_: None)
        return saver, attempt

    def save(self, tokens: int) -> None:
        """Save a checkpoint, and wait for its commit."""
        state = {"model.w": torch.full((8, 8), float(tokens)), "optimizer.w": torch.zeros(8, 8)}
        self.saver.save(tokens, state, Progress(seed=0, updates=tokens), "")
        self.saver.wait()

    def end(self) -> None:
        """End the attempt."""
        self.run.journal.append(Ended, self.attempt, outcome="preempted", reason="asked", tokens=192)


class TargetStore(MemoryStore):
    """A store that fails at its n-th write, and records the largest part of each object."""

    def __init__(self) -> None:
        super().__init__()
        self.writes_left: int | None = None
        self.largest: dict[str, int] = {}

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write, or fail."""
        self._count(key)

        def recorded() -> Iterator[Buffer]:
            for part in parts:
                length = memoryview(part).nbytes
                self.largest[key] = max(self.largest.get(key, 0), length)
                yield part

        super().put(key, recorded())
        if isinstance(parts, Sequence):
            self.largest[key] = len(self.objects[key])  # all parts exist at once

    def create(self, key: str, data: Buffer) -> None:
        """Write, or fail."""
        self._count(key)
        super().create(key, data)

    def _count(self, key: str) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise StoreError(f"{key}: cannot be written: no answer")


@pytest.fixture
def source(store: FolderStore, collectives: Collectives) -> Source:
    """The run to copy."""
    return Source(store, collectives)


@pytest.fixture
def target() -> TargetStore:
    """The target of the copy."""
    return TargetStore()


def copy(source: Source, target: Store) -> list[int]:
    """Copy the run with a fresh view of it."""
    return [*copy_run(Run(source.run.store, "run"), target)]


def findings(store: Store) -> list[str]:
    """The findings of a verification."""
    return [each.problem for each in verify(Run(store, "run")) if not isinstance(each, int)]


def exists(store: Store) -> bool:
    """Whether the run exists for commands."""
    try:
        Run.open(store, "run")
    except UsageError:
        return False
    return True


def contents(source: Source) -> dict[str, bytes]:
    """The objects of a complete copy: all of the run except heartbeat and packs."""
    store, name = source.run.store, source.run.name
    names = [keys.recipe(name)]
    for prefix in (keys.journal(name), keys.checkpoints(name), keys.ledgers(name), keys.log(name)):
        names += store.list(prefix)
    return {key: store.get(key) for key in names}


def test_a_copy_equals_the_run(source: Source, target: TargetStore) -> None:
    """All objects have the same bytes; history and fingerprints are equal; the copy verifies."""
    progress = copy(source, target)
    assert sum(progress) <= size(source.run.history())
    assert target.objects == contents(source)
    copied = Run(target, "run")
    assert copied.history() == source.run.history()
    assert [commit.tokens for commit in copied.history().commits] == [128, 192]
    for commit in copied.history().commits:
        expected = StoredCheckpoint(source.run.store, commit).fingerprint()
        assert StoredCheckpoint(target, commit).fingerprint() == expected
    assert findings(target) == []


def test_the_progress_adds_up_to_the_size(source: Source, target: TargetStore) -> None:
    """The yielded bytes add up to `size` without headers, even if most objects exist already."""
    tensors = 2 * 2 * 2 * 8 * 8 * 4  # two checkpoints of two tensors, each twice
    assert sum(copy(source, target)) == tensors
    assert sum(copy(source, target)) == tensors


def test_a_copy_can_be_trained_on(source: Source, target: TargetStore, collectives: Collectives) -> None:
    """An attempt claims the copy, restores and commits; the original does not change."""
    source.end()
    copy(source, target)
    copied = Run(target, "run")
    copied.freeze(PLAN)
    holder = Holder(host="h", pid=7, started=1, launch="new")
    attempt = copied.claim(holder, PLAN, "data").seq
    state = {"model.w": torch.zeros(8, 8)}
    restore(StoredCheckpoint(target, copied.history().commits[-1]), state)
    assert state["model.w"].eq(192.0).all()
    lineage = Lineage(attempt, recipes.digest(PLAN), "data", ENVIRONMENT)
    saver = Saver(copied, lineage, collectives, retention=Retention(2), on_commit=lambda *_: None)
    saver.save(256, state, Progress(seed=0, updates=256), "")
    saver.wait()
    assert copied.history().tokens == 256
    assert source.run.history().tokens == 192
    assert findings(target) == []


def test_a_copy_is_brought_up_to_date(source: Source, target: TargetStore) -> None:
    """Another call copies what is new, and rewrites no committed object."""
    copy(source, target)
    before = dict(target.objects)
    source.save(256)
    source.run.store.put(keys.log_chunk("run", 1, 0), [b'{"event": "step.done"}\n' * 2])
    source.end()
    copy(source, target)
    assert Run(target, "run").history() == source.run.history()
    assert contents(source).items() <= target.objects.items()
    changed = {key for key, data in before.items() if target.objects[key] != data}
    assert changed == {keys.log_chunk("run", 1, 0), keys.ledger("run", 1)}
    assert findings(target) == []


def test_a_copy_can_be_resumed_after_any_write(source: Source) -> None:
    """Whichever write fails, the run does not exist in the target, and the same call completes it."""
    whole = TargetStore()
    copy(source, whole)
    writes = len(whole.objects)
    for number in range(writes):
        target = TargetStore()
        target.writes_left = number
        with pytest.raises(StoreError, match="cannot be written"):
            copy(source, target)
        assert not exists(target)
        target.writes_left = None
        copy(source, target)
        assert target.objects == whole.objects
    target.writes_left = writes
    copy(source, TargetStore())


def test_a_copy_writes_nothing_twice(source: Source, target: TargetStore) -> None:
    """A resumed copy does not write complete shards again, but does rewrite a truncated one."""
    copy(source, target)
    shards = [key for key in target.objects if key.endswith(".safetensors")]
    target.objects[shards[1]] = target.objects[shards[1]][:-1]
    target.largest.clear()
    copy(source, target)
    assert [key for key in target.largest if key in shards] == [shards[1]]
    assert findings(target) == []


def flip(store: Store, key: str) -> None:
    """Change one byte of an object; in a recipe the seed, because its digest covers only some keys."""
    data = bytearray(store.get(key))
    seed = data.find(b"\nseed: ")
    data[seed + len(b"\nseed: ") if seed >= 0 else -3] ^= 1
    store.put(key, [data])


def shard(source: Source) -> str:
    """A shard of the newest checkpoint."""
    return StoredCheckpoint(source.run.store, source.run.history().commits[-1]).manifest.shards[0].key


PARTS: dict[str, Callable[[Source], str]] = {
    "shard": shard,
    "manifest": lambda source: source.run.history().commits[-1].manifest,
    "journal": lambda _: keys.journal_entry("run", 2),
    "recipe": lambda _: keys.recipe("run"),
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_what_is_damaged_is_not_copied(source: Source, target: TargetStore, part: str, *, missing: bool) -> None:
    """Damage to any part of the original is reported and the copy stays invisible; after a repair it succeeds."""
    key = PARTS[part](source)
    sound = source.run.store.get(key)
    if missing:
        source.run.store.delete(key)
    else:
        flip(source.run.store, key)
    with pytest.raises((DamageError, StoreError), match="entry 2" if part == "journal" else key):
        copy(source, target)
    assert not exists(target)
    assert not [*target.list(keys.journal("run"))]
    source.run.store.put(key, [sound])
    copy(source, target)
    assert target.objects == contents(source)


def test_a_target_that_changes_data_is_detected(source: Source, target: TargetStore) -> None:
    """A changed shard is an error that names the target, and the copy stays invisible."""
    key = shard(source)

    class Careless(TargetStore):
        """A store that changes a byte of each shard. A double, because no real store does so on demand."""

        def put(self, key: str, parts: Iterable[Buffer]) -> None:
            super().put(key, parts)
            if key.endswith(".safetensors"):
                self.objects[key] = self.objects[key][:-1] + b"?"

    careless = Careless()
    with pytest.raises(StoreError, match="did not store what was written") as caught:
        copy(source, careless)
    assert "safetensors" in str(caught.value)
    assert not exists(careless)
    assert key not in careless.objects
    assert target.objects == {}


def test_another_run_of_that_name_is_not_overwritten(
    source: Source, target: TargetStore, collectives: Collectives
) -> None:
    """Another run of the same name is refused before anything is written."""
    Source(target, collectives, pid=2)
    before = dict(target.objects)
    with pytest.raises(UsageError, match="holds another run run, or a copy that went on by itself"):
        copy(source, target)
    assert target.objects == before


def test_another_recipe_of_that_name_is_not_overwritten(source: Source, target: TargetStore) -> None:
    """An unclaimed run with another recipe is refused before anything is written."""
    Run(target, "run").freeze(plan(seed=7))
    before = dict(target.objects)
    with pytest.raises(UsageError, match="holds another"):
        copy(source, target)
    assert target.objects == before


@pytest.mark.parametrize("longer", [False, True])
def test_a_copy_that_went_on_by_itself_is_not_overwritten(source: Source, target: TargetStore, *, longer: bool) -> None:
    """A claimed copy is a run of its own, whether or not the original went on as well."""
    copy(source, target)
    Run(target, "run").claim(Holder(host="h", pid=7, started=1, launch="new"), PLAN, "data", take_over=True)
    if longer:
        source.save(256)
        source.save(320)
    before = dict(target.objects)
    with pytest.raises(UsageError, match="a copy that went on by itself"):
        copy(source, target)
    assert target.objects == before


@pytest.mark.parametrize("after", [1, 2])
def test_pruning_during_the_copy_is_reported(source: Source, target: TargetStore, after: int) -> None:
    """A checkpoint that is pruned while it is copied is no damage; the same call resumes."""
    copying = copy_run(Run(source.run.store, "run"), target)
    for _ in range(after):
        next(copying)
    source.save(256)
    source.save(320)
    with pytest.raises(StoreError, match="was pruned by retention while it was copied; run the same command again"):
        for _ in copying:
            pass
    assert not exists(target)
    copy(source, target)
    assert Run(target, "run").history() == source.run.history()
    assert findings(target) == []


def test_a_shard_is_copied_in_pieces(source: Source, target: TargetStore) -> None:
    """A shard is never in memory whole: the store gets its header, then a tensor or a window at a time."""
    copy(source, target)
    shards = [key for key in target.objects if key.endswith(".safetensors")]
    for commit in Run(target, "run").history().commits:
        manifest = StoredCheckpoint(target, commit).manifest
        assert [target.largest[each.key] for each in manifest.shards] == [
            max(256, each.header_bytes) for each in manifest.shards
        ]
    assert shards
    assert all(target.largest[key] < len(target.objects[key]) for key in shards)


def test_pieces_are_read_lazily(source: Source) -> None:
    """Nothing reads ahead: damage that occurs after the first piece is detected."""
    checkpoint = StoredCheckpoint(source.run.store, source.run.history().commits[-1])
    parts = checkpoint.read_shard(0)
    next(parts)
    flip(source.run.store, shard(source))
    assert next(parts).nbytes == 256
    with pytest.raises(DamageError, match="are not those that were written"):
        next(parts)


def test_a_shard_streams_as_it_is(source: Source) -> None:
    """The joined pieces equal the object."""
    checkpoint = StoredCheckpoint(source.run.store, source.run.history().commits[-1])
    data = b"".join(checkpoint.read_shard(0))
    assert hashlib.sha256(data).digest() == hashlib.sha256(source.run.store.get(shard(source))).digest()


def test_a_run_without_checkpoints_is_copied(tmp_path: Path, target: TargetStore) -> None:
    """An unclaimed run has only a recipe."""
    run = Run(FolderStore(tmp_path / "new"), "run")
    run.freeze(PLAN)
    assert [*copy_run(run, target)] == []
    assert exists(target)
    assert Run(target, "run").recipe() == PLAN
