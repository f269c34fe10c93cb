"""Copies a run to another store. Checks every byte on both sides; the copy becomes visible once it is complete.

The recipe is written last, after the journal, because a run exists as soon as its recipe does. So an interrupted copy
is no run, and the same command resumes it. The copy includes the checkpoints that are not pruned, the ledgers and the
logs.
"""

from collections.abc import Iterator
from contextlib import suppress

from headway.checkpoint.reader import StoredCheckpoint
from headway.errors import DamageError, ExistingObject, MissingObject, StoreError, UsageError
from headway.objectstore import Store, read_document
from headway.runs import Committed, Journal, Run, fold, keys
from headway.runs.history import History
from headway.runs.run import RECIPE_BYTES


def copy_run(run: Run, target: Store) -> Iterator[int]:
    """Copy `run` to `target`; yields the bytes done. Each byte of a checkpoint counts twice: copied, and verified.

    Raises:
        UsageError: `target` holds another run of that name.
        DamageError: the run is damaged; the copy is not visible.
        StoreError: a store failed, or `target` changed data; the copy is not visible.
    """
    journal = Journal(run.store, run.name, packed=False)
    history = fold(journal.read())
    if history.damaged:
        raise DamageError(f"run {run.name}: {history.damaged[0].reason}; repair the run before you copy it")
    run.recipe()  # checks that it is readable, and the one that the run was begun with
    recipe = read_document(run.store, keys.recipe(run.name), RECIPE_BYTES)
    copied = Journal(target, run.name, packed=False)
    copied.read()
    if copied.bodies != journal.bodies[: len(copied.bodies)]:
        raise UsageError(
            f"{target.url} holds another run {run.name}, or a copy that went on by itself; use another store"
        )
    with suppress(MissingObject):
        _check_equal(target, keys.recipe(run.name), recipe)
    for commit in history.commits:
        yield from _copy_checkpoint(run, commit, target)
    _copy_ledgers_and_logs(run, target)
    for number, body in enumerate(journal.bodies[len(copied.bodies) :], len(copied.bodies) + 1):
        _create(target, keys.journal_entry(run.name, number), body)
    _create(target, keys.recipe(run.name), recipe)


def size(history: History) -> int:
    """The total number of bytes that `copy_run` yields."""
    return 2 * sum(commit.bytes for commit in history.commits)


def _copy_checkpoint(run: Run, commit: Committed, target: Store) -> Iterator[int]:
    """Copy a checkpoint, then verify the copy; yields the bytes done."""
    try:
        yield from _copy_objects(StoredCheckpoint(run.store, commit), target)
    except (DamageError, MissingObject):
        if commit.manifest in run.history().pruned:
            raise StoreError(
                f"the checkpoint at {commit.tokens:,} tokens was pruned by retention while it was copied; "
                f"run the same command again"
            ) from None
        raise
    for damage in StoredCheckpoint(target, commit).damage():
        if isinstance(damage, DamageError):
            raise StoreError(
                f"{target.url} did not store what was written: {damage}; delete that object there, or use another store"
            )
        yield damage


def _copy_objects(checkpoint: StoredCheckpoint, target: Store) -> Iterator[int]:
    """Copy shards and manifest. Shards with the right length are not copied again; the verification checks them."""
    manifest = checkpoint.manifest
    existing = dict(target.sizes(keys.folder(checkpoint.commit.manifest)))
    for index, shard in enumerate(manifest.shards):
        if existing.get(shard.key) != shard.bytes:
            target.put(shard.key, checkpoint.read_shard(index))
        yield shard.bytes - shard.header_bytes
    target.put(checkpoint.commit.manifest, [checkpoint.manifest_bytes])


def _copy_ledgers_and_logs(run: Run, target: Store) -> None:
    """Copy those whose length differs. What else lies among them is somebody's, and stays."""
    for prefix in (keys.ledgers(run.name), keys.log(run.name)):
        existing = dict(target.sizes(prefix))
        for key, length in run.store.sizes(prefix):
            if existing.get(key) != length and keys.is_of_run(run.name, key):
                target.put(key, [run.store.get(key)])


def _create(target: Store, key: str, data: bytes) -> None:
    """Create an object, or check that it exists with these bytes."""
    try:
        target.create(key, data)
    except ExistingObject:
        _check_equal(target, key, data)


def _check_equal(target: Store, key: str, data: bytes) -> None:
    """Raise UsageError if the object in `target` has other bytes."""
    if target.get(key, 0, len(data) + 1) != data:
        raise UsageError(f"{target.url} holds another {key}; choose another store")
