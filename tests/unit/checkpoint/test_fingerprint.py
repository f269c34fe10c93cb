"""The fingerprint depends on the parameters of a checkpoint, not on how they are stored."""

import torch
from tests.unit.checkpoint.conftest import NewRun

from headway.checkpoint.manifest import CheckpointManifest, Environment, Progress, Tensor
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.shard import Piece, serialize
from headway.objectstore.folder import FolderStore
from headway.runs import Committed, keys
from headway.runs.entries import sha256

Rectangle = tuple[int, int, int, int]
"""First row, first column, rows, columns."""
WHOLE = torch.arange(48, dtype=torch.float32).reshape(6, 8)


def stored(store: FolderStore, attempt: int, ranks: list[list[Rectangle]]) -> StoredCheckpoint:
    """A checkpoint of `WHOLE` as `model.w`; each rank holds these rectangles of it."""
    shards, chunks = [], []
    key = keys.checkpoint_manifest("run", 64, attempt)
    for rank, rectangles in enumerate(ranks):
        pieces = []
        for row, column, rows, columns in rectangles:
            data = WHOLE[row : row + rows, column : column + columns].contiguous().view(-1).view(torch.uint8)
            pieces.append(Piece("model.w", "float32", (6, 8), (row, column), (rows, columns), data.numpy().data))
        laid = serialize(keys.shard(keys.folder(key), rank, len(ranks)), pieces)
        store.put(laid.shard.key, laid.parts)
        shards.append(laid.shard)
        chunks += [chunk.model_copy(update={"shard": rank}) for chunk in laid.chunks]
    manifest = CheckpointManifest(
        run="run",
        attempt=attempt,
        tokens=64,
        recipe="r",
        data="d",
        world_size=len(ranks),
        environment=Environment(device="d", precision="fp32", threads=1, torch="0", headway="0"),
        progress=Progress(seed=0, updates=1),
        parent=None,
        shards=tuple(shards),
        tensors={"model.w": Tensor(dtype="float32", shape=(6, 8), chunks=tuple(chunks))},
    )
    written = manifest.encode()
    store.put(key, [written])
    place = {"manifest": key, "sha256": sha256(written), "bytes": 192, "tokens": 64}
    return StoredCheckpoint(
        store, Committed.model_validate({"seq": 2, "attempt": 1, "time": 0.0, "nonce": "n", "previous": "", **place})
    )


def test_the_fingerprint_does_not_depend_on_how_a_tensor_was_cut(store: FolderStore) -> None:
    """Whole, by rows over ranks, by columns, or in unequal rectangles: the same parameters, one fingerprint."""
    fingerprints = {
        stored(store, attempt, ranks).fingerprint()
        for attempt, ranks in enumerate(
            [
                [[(0, 0, 6, 8)]],
                [[(0, 0, 2, 8)], [(2, 0, 2, 8)], [(4, 0, 2, 8)]],
                [[(0, 4, 6, 4)], [(0, 0, 6, 4)]],
                [[(0, 0, 5, 3), (5, 0, 1, 8)], [(0, 3, 5, 5)]],
            ],
            start=1,
        )
    }
    assert len(fingerprints) == 1


def test_the_fingerprint_is_of_parameters_alone(new_run: NewRun, store: FolderStore) -> None:
    """The optimizer's state does not enter it; one bit, the name or the type of a parameter does."""
    saving = new_run(keep=10)
    weights = torch.arange(4, dtype=torch.float32)
    changed = weights.clone()
    changed[0] = -0.0

    def fingerprint(tokens: int, **tensors: torch.Tensor) -> str:
        named = {name.replace("_", ".", 1): tensor for name, tensor in tensors.items()}
        saving.saver = new_run(keep=10).saver
        return StoredCheckpoint(store, saving.save(tokens, named)).fingerprint()

    same = fingerprint(64, model_w=weights, optimizer_w=weights)
    assert fingerprint(128, model_w=weights, optimizer_w=changed) == same
    assert fingerprint(192, model_w=weights) == same
    others = {
        fingerprint(256, model_w=changed),
        fingerprint(320, model_v=weights),
        fingerprint(384, model_w=weights.view(torch.int32)),
        fingerprint(448, model_w=weights.reshape(2, 2)),
    }
    assert len(others | {same}) == 5
