"""A run copied to another store: checked on the way there, checked again there, and true only once it is whole.

The recipe goes last, after the journal: a run exists from the moment that its recipe is there. So a copy that was
broken off is no run, and the same command goes on with it. Copied are the checkpoints that count, the ledgers and the
logs too.
"""

from collections.abc import Iterator
from contextlib import suppress

from headway.checkpoint.reader import StoredCheckpoint
from headway.errors import DamageError, ExistingObject, MissingObject, StoreError, UsageError
from headway.objectstore import Store
from headway.runs import Journal, Run, fold, keys
from headway.runs.history import History


def copy_run(run: Run, target: Store) -> Iterator[int]:
    """Copy `run` into `target`; yields the bytes that were done, each byte of a checkpoint twice: copied, and checked.

    Raises:
        UsageError: another run of that name is there.
        DamageError: something to be copied is not what was written; nothing was made true.
        StoreError: a store failed, or kept something else than it was given; nothing was made true.
    """
    journal = Journal(run.store, run.name, packed=False)
    history = fold(journal.read())
    if history.damaged:
        raise DamageError(f"run {run.name}: {history.damaged[0].reason}; mend the run before it is copied")
    run.recipe()  # readable, and the one that the run was begun with
    recipe = run.store.get(keys.recipe(run.name))
    there = Journal(target, run.name, packed=False)
    there.read()
    if there.bodies != journal.bodies[: len(there.bodies)]:
        raise UsageError(
            f"{target.url} holds another run {run.name}, or a copy that went on by itself; use another store"
        )
    with suppress(MissingObject):
        _check_same(target, keys.recipe(run.name), recipe)
    for commit in history.commits:
        checkpoint = StoredCheckpoint(run.store, commit)
        try:
            yield from _copy(checkpoint, target)
        except (DamageError, MissingObject):
            if commit.manifest in run.history().pruned:
                raise StoreError(
                    f"the checkpoint at {commit.tokens:,} tokens was given up by retention while it was copied; "
                    f"run the same command again"
                ) from None
            raise
        for found in StoredCheckpoint(target, commit).damage():
            if isinstance(found, DamageError):
                raise StoreError(
                    f"{target.url} did not keep what it was given: {found}; delete that there, or use another"
                )
            yield found
    for prefix in (keys.ledgers(run.name), keys.log(run.name)):
        there_already = dict(target.sizes(prefix))
        for key, length in run.store.sizes(prefix):
            if there_already.get(key) != length:
                target.put(key, [run.store.get(key)])
    for number, body in enumerate(journal.bodies[len(there.bodies) :], len(there.bodies) + 1):
        _create(target, keys.entry(run.name, number), body)
    _create(target, keys.recipe(run.name), recipe)


def size(history: History) -> int:
    """What `replicate` will yield in all [bytes]."""
    return 2 * sum(commit.bytes for commit in history.commits)


def _copy(checkpoint: StoredCheckpoint, target: Store) -> Iterator[int]:
    """Copy one checkpoint's shards and manifest; what is there at its full length is left to the check that follows."""
    manifest = checkpoint.manifest
    there = dict(target.sizes(keys.folder(checkpoint.commit.manifest)))
    for index, shard in enumerate(manifest.shards):
        if there.get(shard.key) != shard.bytes:
            target.put(shard.key, checkpoint.shard(index))
        yield shard.bytes - shard.header_bytes
    target.put(checkpoint.commit.manifest, [checkpoint.store.get(checkpoint.commit.manifest)])


def _create(target: Store, key: str, data: bytes) -> None:
    """Create an object, or see that it is there with these bytes."""
    try:
        target.create(key, data)
    except ExistingObject:
        _check_same(target, key, data)


def _check_same(target: Store, key: str, data: bytes) -> None:
    """See that what is there is what would be written."""
    if target.get(key) != data:
        raise UsageError(f"{target.url} holds another {key}; choose another store")
