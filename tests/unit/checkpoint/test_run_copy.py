"""A copy of a run is the run: checked on the way, true once it is whole, and gone on with where it broke off."""

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
    """A run with a recipe, checkpoints, of which the oldest was given up, a ledger and a log."""

    def __init__(self, store: Store, ranks: Collectives, name: str = "run", pid: int = 1) -> None:
        self.run, self.ranks = Run(store, name), ranks
        self.run.freeze(PLAN)
        self.saver, self.attempt = self.claim(pid)
        for tokens in (64, 128, 192):
            self.save(tokens)
        store.put(keys.ledger(name, self.attempt), [b"{}\n"])
        store.put(keys.log_chunk(name, self.attempt, 0), [b'{"event": "step.done"}\n'])

    def claim(self, pid: int) -> tuple[Saver, int]:
        """An attempt that saves, keeping two."""
        holder = Holder(host="elsewhere", pid=pid, started=1, launch=f"{pid}")
        attempt = self.run.claim(holder, PLAN, "data", take_over=True).seq
        lineage = Lineage(attempt, recipes.digest(PLAN), "data", ENVIRONMENT)
        saver = Saver(self.run, lineage, self.ranks, retention=Retention(2), announce=lambda *_: None)
        return saver, attempt

    def save(self, tokens: int) -> None:
        """Save a checkpoint, and wait until it is there."""
        found = {"model.w": torch.full((8, 8), float(tokens)), "optimizer.w": torch.zeros(8, 8)}
        self.saver.save(tokens, found, Progress(seed=0, updates=tokens), "")
        self.saver.wait()

    def end(self) -> None:
        """The attempt is done."""
        self.run.journal.append(Ended, self.attempt, outcome="preempted", reason="asked", tokens=192)


class TargetStore(MemoryStore):
    """A store that breaks at its n-th write, and notes how much of an object it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None
        self.largest: dict[str, int] = {}

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write, unless it breaks here."""
        self._count(key)

        def noted() -> Iterator[Buffer]:
            for part in parts:
                length = memoryview(part).nbytes
                self.largest[key] = max(self.largest.get(key, 0), length)
                yield part

        super().put(key, noted())
        if isinstance(parts, Sequence):
            self.largest[key] = len(self.objects[key])  # it was all there at once

    def create(self, key: str, data: Buffer) -> None:
        """Write, unless it breaks here."""
        self._count(key)
        super().create(key, data)

    def _count(self, key: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise StoreError(f"{key}: cannot be written: no answer")


@pytest.fixture
def source(store: FolderStore, ranks: Collectives) -> Source:
    """A run to be copied."""
    return Source(store, ranks)


@pytest.fixture
def target() -> TargetStore:
    """Where it is copied to."""
    return TargetStore()


def copy(source: Source, target: Store) -> list[int]:
    """Copy the run, as somebody does who comes anew."""
    return [*copy_run(Run(source.run.store, "run"), target)]


def findings(store: Store) -> list[str]:
    """What is wrong with a run."""
    return [found.what for found in verify(Run(store, "run")) if not isinstance(found, int)]


def exists(store: Store) -> bool:
    """Whether commands find the run."""
    try:
        Run.existing(store, "run")
    except UsageError:
        return False
    return True


def contents(source: Source) -> dict[str, bytes]:
    """What a copy is to hold: everything but the heartbeat, the packs, and what is no part of the run."""
    store, name = source.run.store, source.run.name
    wanted = [keys.recipe(name)]
    for prefix in (keys.journal(name), keys.checkpoints(name), keys.ledgers(name), keys.log(name)):
        wanted += store.list(prefix)
    return {key: store.get(key) for key in wanted}


def test_a_copy_is_the_run(source: Source, target: TargetStore) -> None:
    """Every object is there, byte for byte; history and fingerprints are equal; nothing is wrong with it."""
    done = copy(source, target)
    assert sum(done) <= size(source.run.history())
    assert target.objects == contents(source)
    there = Run(target, "run")
    assert there.history() == source.run.history()
    assert [commit.tokens for commit in there.history().commits] == [128, 192]
    for commit in there.history().commits:
        here = StoredCheckpoint(source.run.store, commit).fingerprint()
        assert StoredCheckpoint(target, commit).fingerprint() == here
    assert findings(target) == []


def test_what_is_done_is_told_in_the_bytes_that_were_promised(source: Source, target: TargetStore) -> None:
    """A progress bar gets to its end, up to the headers, also when most was there already."""
    tensors = 2 * 2 * 2 * 8 * 8 * 4  # two checkpoints of two tensors, each twice
    assert sum(copy(source, target)) == tensors
    assert sum(copy(source, target)) == tensors


def test_a_copy_can_be_trained_on(source: Source, target: TargetStore, ranks: Collectives) -> None:
    """Somebody claims it, restores its newest checkpoint and commits the next; the original knows nothing of it."""
    source.end()
    copy(source, target)
    there = Run(target, "run")
    there.freeze(PLAN)
    holder = Holder(host="h", pid=7, started=1, launch="new")
    attempt = there.claim(holder, PLAN, "data").seq
    found = {"model.w": torch.zeros(8, 8)}
    restore(StoredCheckpoint(target, there.history().commits[-1]), found)
    assert found["model.w"].eq(192.0).all()
    lineage = Lineage(attempt, recipes.digest(PLAN), "data", ENVIRONMENT)
    saver = Saver(there, lineage, ranks, retention=Retention(2), announce=lambda *_: None)
    saver.save(256, found, Progress(seed=0, updates=256), "")
    saver.wait()
    assert there.history().tokens == 256
    assert source.run.history().tokens == 192
    assert findings(target) == []


def test_a_copy_is_brought_up_to_date(source: Source, target: TargetStore) -> None:
    """The same call again brings what has happened since, and rewrites nothing that is true already."""
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


def test_a_copy_that_breaks_off_anywhere_is_gone_on_with(source: Source) -> None:
    """At whichever write the store fails: until the last there is no run, and the same call completes it."""
    whole = TargetStore()
    copy(source, whole)
    writes = len(whole.objects)
    for number in range(writes):
        target = TargetStore()
        target.left = number
        with pytest.raises(StoreError, match="cannot be written"):
            copy(source, target)
        assert not exists(target)
        target.left = None
        copy(source, target)
        assert target.objects == whole.objects
    target.left = writes
    copy(source, TargetStore())


def test_a_copy_writes_nothing_twice(source: Source, target: TargetStore) -> None:
    """Going on does not send a shard again that is there; a part of one that a store kept is sent again."""
    copy(source, target)
    shards = [key for key in target.objects if key.endswith(".safetensors")]
    target.objects[shards[1]] = target.objects[shards[1]][:-1]
    target.largest.clear()
    copy(source, target)
    assert [key for key in target.largest if key in shards] == [shards[1]]
    assert findings(target) == []


def flip(store: Store, key: str) -> None:
    """Change one byte of an object; of a recipe the seed, as what says only where it runs is not checked."""
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
    "journal": lambda _: keys.entry("run", 2),
    "recipe": lambda _: keys.recipe("run"),
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_what_is_damaged_is_not_copied(source: Source, target: TargetStore, part: str, *, missing: bool) -> None:
    """Whatever part of the original is damaged or missing is named, and nothing becomes true; mended, it is copied."""
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


def test_a_store_that_keeps_something_else_is_found_out(source: Source, target: TargetStore) -> None:
    """A shard that arrives changed is an error about the target, and nothing becomes true there."""
    key = shard(source)

    class Careless(TargetStore):
        """A store that changes a byte on the way. A double: no real one can be made to."""

        def put(self, key: str, parts: Iterable[Buffer]) -> None:
            super().put(key, parts)
            if key.endswith(".safetensors"):
                self.objects[key] = self.objects[key][:-1] + b"?"

    careless = Careless()
    with pytest.raises(StoreError, match="did not keep what it was given") as caught:
        copy(source, careless)
    assert "safetensors" in str(caught.value)
    assert not exists(careless)
    assert key not in careless.objects
    assert target.objects == {}


def test_another_run_of_that_name_is_not_overwritten(source: Source, target: TargetStore, ranks: Collectives) -> None:
    """A run that began by itself under the name is refused before anything is written, and stays as it is."""
    Source(target, ranks, pid=2)
    before = dict(target.objects)
    with pytest.raises(UsageError, match="holds another run run, or a copy that went on by itself"):
        copy(source, target)
    assert target.objects == before


def test_another_recipe_of_that_name_is_not_overwritten(source: Source, target: TargetStore) -> None:
    """A run that was begun with another recipe and never claimed is refused before anything is written."""
    Run(target, "run").freeze(plan(seed=7))
    before = dict(target.objects)
    with pytest.raises(UsageError, match="holds another"):
        copy(source, target)
    assert target.objects == before


@pytest.mark.parametrize("longer", [False, True])
def test_a_copy_that_went_on_by_itself_is_not_overwritten(source: Source, target: TargetStore, *, longer: bool) -> None:
    """Once the copy has been claimed it is a run of its own, whether or not the original has gone on as well."""
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
def test_retention_during_the_copy_is_said(source: Source, target: TargetStore, after: int) -> None:
    """A checkpoint that is given up and deleted while it is copied is no damage: the same call goes on."""
    copying = copy_run(Run(source.run.store, "run"), target)
    for _ in range(after):
        next(copying)
    source.save(256)
    source.save(320)
    with pytest.raises(StoreError, match="was given up by retention while it was copied; run the same command again"):
        for _ in copying:
            pass
    assert not exists(target)
    copy(source, target)
    assert Run(target, "run").history() == source.run.history()
    assert findings(target) == []


def test_a_shard_goes_through_in_pieces(source: Source, target: TargetStore) -> None:
    """A shard is never held whole: the store gets its header, and then a tensor, or a window of one, at a time."""
    copy(source, target)
    shards = [key for key in target.objects if key.endswith(".safetensors")]
    for commit in Run(target, "run").history().commits:
        manifest = StoredCheckpoint(target, commit).manifest
        assert [target.largest[each.key] for each in manifest.shards] == [
            max(256, each.header_bytes) for each in manifest.shards
        ]
    assert all(target.largest[key] < len(target.objects[key]) for key in shards)


def test_pieces_are_read_when_they_are_asked_for(source: Source) -> None:
    """Nobody reads ahead: what is damaged after the store has taken the first piece is found all the same."""
    checkpoint = StoredCheckpoint(source.run.store, source.run.history().commits[-1])
    parts = checkpoint.shard(0)
    next(parts)
    flip(source.run.store, shard(source))
    assert next(parts).nbytes == 256
    with pytest.raises(DamageError, match="are not those that were written"):
        next(parts)


def test_a_shard_streams_as_it_is(source: Source) -> None:
    """The pieces joined are the object."""
    checkpoint = StoredCheckpoint(source.run.store, source.run.history().commits[-1])
    data = b"".join(checkpoint.shard(0))
    assert hashlib.sha256(data).digest() == hashlib.sha256(source.run.store.get(shard(source))).digest()


def test_a_run_without_checkpoints_is_copied(tmp_path: Path, target: TargetStore) -> None:
    """A run that nobody claimed yet is its recipe."""
    run = Run(FolderStore(tmp_path / "new"), "run")
    run.freeze(PLAN)
    assert [*copy_run(run, target)] == []
    assert exists(target)
    assert Run(target, "run").recipe() == PLAN
