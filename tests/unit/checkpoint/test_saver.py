"""What was saved comes back with the same bits, and a save that fails touches nothing that was there."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.unit.checkpoint.conftest import Keep, Tensors
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from headway.checkpoint.collectives import Collectives
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.restore import restore
from headway.errors import DamageError, FencedError, StoreError
from headway.objectstore import Buffer
from headway.objectstore.folder import FolderStore
from headway.runs import Ended, Holder, Journal, Run


class FailingStore(FolderStore):
    """A store that loses its disk while a shard is written. A double: a real disk cannot be filled on demand."""

    broken = False

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object, unless it is a shard and the disk is gone."""
        if self.broken and key.endswith(".safetensors"):
            raise StoreError(f"{key}: cannot be written to {self.url}: No space left on device")
        super().put(key, parts)


def tensors(seed: int = 1) -> dict[str, torch.Tensor]:
    """Random bits in several types and shapes, NaN and negative zero among them."""
    generator = torch.Generator().manual_seed(seed)
    odd = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    return {
        "model.matrix": torch.randn(7, 5, generator=generator),
        "model.half": torch.randn(3, 2, generator=generator).bfloat16(),
        "model.odd": odd,
        "optimizer.exp_avg.matrix": torch.randn(7, 5, generator=generator),
        "optimizer.step": torch.tensor(3, dtype=torch.int64),
    }


def bits(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def empty_like(found: Tensors) -> dict[str, torch.Tensor]:
    """Tensors of the same shapes, of other contents."""
    return {name: torch.full_like(tensor, 9) for name, tensor in found.items()}


def test_what_was_saved_comes_back_with_the_same_bits(keeping: Keep) -> None:
    """Every type and shape is restored bit for bit, and so is the progress."""
    keeper, saved = keeping(), tensors()
    commit = keeper.save(64, saved)
    checkpoint = StoredCheckpoint(keeper.run.store, commit)
    found = empty_like(saved)
    restore(checkpoint, found)
    assert {name: bits(t) for name, t in found.items()} == {name: bits(t) for name, t in saved.items()}
    assert checkpoint.manifest.progress.updates == 64
    assert keeper.announced == [64]


def test_a_sharded_tensor_comes_back_into_a_sharded_one(keeping: Keep, ranks: Collectives) -> None:
    """A DTensor is saved from its shards and restored into them."""
    assert ranks.size == 1
    mesh = DeviceMesh("cpu", [0])
    keeper, whole = keeping(), torch.randn(6, 4)
    commit = keeper.save(64, {"model.w": distribute_tensor(whole, mesh, [Shard(0)])})
    found = distribute_tensor(torch.zeros(6, 4), mesh, [Shard(1)])
    restore(StoredCheckpoint(keeper.run.store, commit), {"model.w": found})
    assert isinstance(found, DTensor)
    assert torch.equal(found.full_tensor(), whole)


def test_the_state_may_change_as_soon_as_the_copy_is_taken(keeping: Keep) -> None:
    """A checkpoint holds what the tensors were when it began, not what they became."""
    keeper, saved = keeping(), {"model.u": torch.zeros(1000)}
    keeper.save(64)
    keeper.saver.save(
        128, saved, StoredCheckpoint(keeper.run.store, keeper.run.history().commits[-1]).manifest.progress, ""
    )
    keeper.saver.await_copy()
    saved["model.u"].fill_(1.0)
    keeper.saver.wait()
    found = {"model.u": torch.full((1000,), 5.0)}
    restore(StoredCheckpoint(keeper.run.store, keeper.run.history().commits[-1]), found)
    assert not found["model.u"].any()


def test_a_shard_is_a_safetensors_file(keeping: Keep, store: FolderStore) -> None:
    """Anybody's safetensors reader opens a shard, and finds each tensor under its name and place."""
    keeper, saved = keeping(), tensors()
    shard = StoredCheckpoint(store, keeper.save(64, saved)).manifest.shards[0]
    with safe_open(store.root / shard.key, framework="pt") as opened:
        assert set(opened.keys()) == {
            "model.matrix@0,0", "model.half@0,0", "model.odd@0", "optimizer.exp_avg.matrix@0,0", "optimizer.step@",
        }  # fmt: skip
        for key in opened.keys():  # noqa: SIM118 - it is not a mapping
            assert bits(opened.get_tensor(key)) == bits(saved[key.partition("@")[0]])


def test_checkpoints_follow_one_another(keeping: Keep, store: FolderStore) -> None:
    """Each manifest names the one before it."""
    keeper = keeping()
    first, second = keeper.save(64), keeper.save(128)
    assert StoredCheckpoint(store, first).manifest.parent is None
    assert StoredCheckpoint(store, second).manifest.parent == first.manifest


def test_a_failed_save_names_rank_and_object_and_leaves_the_others(
    keeping: Keep, tmp_path: Path, ranks: Collectives
) -> None:
    """When a shard cannot be written, the error says whose and which; earlier commits are whole, and saving goes on."""
    assert ranks.first
    store = FailingStore(tmp_path / "failing")
    keeper = keeping(store=store)
    first = keeper.save(64)
    before = [*store.list("")]
    store.broken = True
    with pytest.raises(StoreError) as caught:
        keeper.save(128)
    message = str(caught.value)
    assert "the checkpoint at 128 tokens was not saved: rank 0: " in message
    assert "00000-of-00001.safetensors: cannot be written" in message
    assert [*store.list("")] == before
    assert keeper.run.history().commits == [first]
    assert not [found for found in StoredCheckpoint(store, first).damage() if not isinstance(found, int)]
    store.broken = False
    assert keeper.save(128).tokens == 128
    assert keeper.announced == [64, 128]


def test_a_fenced_attempt_commits_nothing(keeping: Keep, store: FolderStore) -> None:
    """After a newer claim a save ends in an error, and no commit is made."""
    keeper = keeping()
    first = keeper.save(64)
    other = Holder(host="h", pid=2, started=1, launch="y")
    Run(store, "run").journal.claim(lambda: None, holder=other, recipe="r")
    with pytest.raises(FencedError):
        keeper.save(128)
    assert keeper.run.history().commits == [first]


@pytest.mark.parametrize("place", [3, -1])
def test_a_flipped_bit_is_damage_that_is_named(keeping: Keep, store: FolderStore, place: int) -> None:
    """One flipped bit, in the header or in a tensor, is found, and no tensor is restored from it."""
    keeper, saved = keeping(), tensors()
    checkpoint = StoredCheckpoint(store, keeper.save(64, saved))
    path = store.root / checkpoint.manifest.shards[0].key
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    found = [each for each in checkpoint.damage() if isinstance(each, DamageError)]
    assert len(found) == 1
    assert checkpoint.manifest.shards[0].key in str(found[0])
    if place < 0:
        with pytest.raises(DamageError, match="are not those that were written"):
            restore(checkpoint, empty_like(saved))


def test_a_checkpoint_without_a_tensor_that_is_asked_for_is_damage(keeping: Keep, store: FolderStore) -> None:
    """A missing tensor, or one of another shape, is refused by name before anything is read."""
    checkpoint = StoredCheckpoint(store, keeping().save(64))
    for wanted in ({"model.v": torch.zeros(4, 4)}, {"model.w": torch.zeros(4, 5)}):
        with pytest.raises(DamageError, match="has no tensor model"):
            restore(checkpoint, wanted)


class EndingStore(FolderStore):
    """A store in which the launcher says that the attempt failed, just after a commit of it."""

    attempt = 0

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object, and with the ledger the end of its attempt."""
        super().put(key, parts)
        if self.attempt and "/ledger/" in key:
            Journal(self, "run").append(Ended, self.attempt, outcome="failed", reason="impatience", tokens=64)


def test_who_is_fenced_after_the_commit_has_committed(keeping: Keep, tmp_path: Path) -> None:
    """What can only be tidied up after a checkpoint does not make it one that was not saved."""
    store = EndingStore(tmp_path / "ending")
    keeper = keeping(keep=1, store=store)
    keeper.save(64)
    store.attempt = keeper.attempt
    with pytest.raises(FencedError, match="ended already"):
        keeper.save(128)
    assert keeper.announced == [64, 128]
    assert keeper.run.history().commits[-1].tokens == 128
