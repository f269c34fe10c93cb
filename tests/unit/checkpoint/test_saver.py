"""A saved state is restored bit for bit, and a failed save does not touch earlier checkpoints."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.unit.checkpoint.conftest import NewRun, Tensors
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
    """A store whose disk is full for shards. A double, because a real disk cannot be filled on demand."""

    broken = False

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object; fail for a shard if the disk is full."""
        if self.broken and key.endswith(".safetensors"):
            raise StoreError(f"{key}: cannot be written to {self.url}: No space left on device")
        super().put(key, parts)


def tensors(seed: int = 1) -> dict[str, torch.Tensor]:
    """Random values of several dtypes and shapes, NaN and negative zero among them."""
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


def empty_like(state: Tensors) -> dict[str, torch.Tensor]:
    """Tensors of the same shapes with other values."""
    return {name: torch.full_like(tensor, 9) for name, tensor in state.items()}


def test_a_restored_state_has_the_same_bits(new_run: NewRun) -> None:
    """Every dtype and shape is restored bit for bit, and so is the progress."""
    saving, saved = new_run(), tensors()
    commit = saving.save(64, saved)
    checkpoint = StoredCheckpoint(saving.run.store, commit)
    restored = empty_like(saved)
    restore(checkpoint, restored)
    assert {name: bits(t) for name, t in restored.items()} == {name: bits(t) for name, t in saved.items()}
    assert checkpoint.manifest.progress.updates == 64
    assert saving.committed == [64]


def test_a_sharded_tensor_is_restored_to_another_sharding(new_run: NewRun, collectives: Collectives) -> None:
    """A DTensor is saved from its shards, and restored into shards of another dimension."""
    assert collectives.size == 1
    mesh = DeviceMesh("cpu", [0])
    saving, whole = new_run(), torch.randn(6, 4)
    commit = saving.save(64, {"model.w": distribute_tensor(whole, mesh, [Shard(0)])})
    restored = distribute_tensor(torch.zeros(6, 4), mesh, [Shard(1)])
    restore(StoredCheckpoint(saving.run.store, commit), {"model.w": restored})
    assert isinstance(restored, DTensor)
    assert torch.equal(restored.full_tensor(), whole)


def test_the_state_may_change_once_it_is_copied(new_run: NewRun) -> None:
    """A checkpoint holds the values from the start of the save."""
    saving, saved = new_run(), {"model.u": torch.zeros(1000)}
    saving.save(64)
    saving.saver.save(
        128, saved, StoredCheckpoint(saving.run.store, saving.run.history().commits[-1]).manifest.progress, ""
    )
    saving.saver.await_copy()
    saved["model.u"].fill_(1.0)
    saving.saver.wait()
    restored = {"model.u": torch.full((1000,), 5.0)}
    restore(StoredCheckpoint(saving.run.store, saving.run.history().commits[-1]), restored)
    assert not restored["model.u"].any()


def test_a_shard_is_a_safetensors_file(new_run: NewRun, store: FolderStore) -> None:
    """The safetensors library opens a shard, and finds each tensor under its name and offset."""
    saving, saved = new_run(), tensors()
    shard = StoredCheckpoint(store, saving.save(64, saved)).manifest.shards[0]
    with safe_open(store.root / shard.key, framework="pt") as opened:
        assert set(opened.keys()) == {
            "model.matrix@0,0", "model.half@0,0", "model.odd@0", "optimizer.exp_avg.matrix@0,0", "optimizer.step@",
        }  # fmt: skip
        for key in opened.keys():  # noqa: SIM118 - it is not a mapping
            assert bits(opened.get_tensor(key)) == bits(saved[key.partition("@")[0]])


def test_a_manifest_names_its_parent(new_run: NewRun, store: FolderStore) -> None:
    """The parent is the checkpoint before; the first has none."""
    saving = new_run()
    first, second = saving.save(64), saving.save(128)
    assert StoredCheckpoint(store, first).manifest.parent is None
    assert StoredCheckpoint(store, second).manifest.parent == first.manifest


def test_a_failed_save_names_rank_and_object_and_leaves_the_others(
    new_run: NewRun, tmp_path: Path, collectives: Collectives
) -> None:
    """The error names rank and object; earlier commits stay sound, and the next save succeeds."""
    assert collectives.is_rank0
    store = FailingStore(tmp_path / "failing")
    saving = new_run(store=store)
    first = saving.save(64)
    before = [*store.list("")]
    store.broken = True
    with pytest.raises(StoreError) as caught:
        saving.save(128)
    message = str(caught.value)
    assert "the checkpoint at 128 tokens was not saved: rank 0: " in message
    assert "00000-of-00001.safetensors: cannot be written" in message
    assert [*store.list("")] == before
    assert saving.run.history().commits == [first]
    assert not [each for each in StoredCheckpoint(store, first).damage() if not isinstance(each, int)]
    store.broken = False
    assert saving.save(128).tokens == 128
    assert saving.committed == [64, 128]


def test_a_fenced_attempt_commits_nothing(new_run: NewRun, store: FolderStore) -> None:
    """After a newer claim, a save raises FencedError and commits nothing."""
    saving = new_run()
    first = saving.save(64)
    other = Holder(host="h", pid=2, started=1, launch="y")
    Run(store, "run").journal.claim(lambda: None, holder=other, recipe="r")
    with pytest.raises(FencedError):
        saving.save(128)
    assert saving.run.history().commits == [first]


@pytest.mark.parametrize("place", [3, -1])
def test_a_flipped_bit_is_damage_that_is_named(new_run: NewRun, store: FolderStore, place: int) -> None:
    """One flipped bit, in the header or in a tensor, is detected, and the tensor is not restored."""
    saving, saved = new_run(), tensors()
    checkpoint = StoredCheckpoint(store, saving.save(64, saved))
    path = store.root / checkpoint.manifest.shards[0].key
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    errors = [each for each in checkpoint.damage() if isinstance(each, DamageError)]
    assert len(errors) == 1
    assert checkpoint.manifest.shards[0].key in str(errors[0])
    if place < 0:
        with pytest.raises(DamageError, match="are not those that were written"):
            restore(checkpoint, empty_like(saved))


def test_a_checkpoint_without_a_requested_tensor_is_damage(new_run: NewRun, store: FolderStore) -> None:
    """A missing tensor, or one of another shape, is reported by name before anything is read."""
    checkpoint = StoredCheckpoint(store, new_run().save(64))
    for state in ({"model.v": torch.zeros(4, 4)}, {"model.w": torch.zeros(4, 5)}):
        with pytest.raises(DamageError, match="has no float32 tensor model"):
            restore(checkpoint, state)


class EndingStore(FolderStore):
    """A store in which the launcher records a failure of the attempt just after its commit."""

    attempt = 0

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object; with the ledger, record the end of its attempt."""
        super().put(key, parts)
        if self.attempt and "/ledger/" in key:
            Journal(self, "run").append(Ended, self.attempt, outcome="failed", reason="impatience", tokens=64)


def test_an_attempt_fenced_after_its_commit_has_committed(new_run: NewRun, tmp_path: Path) -> None:
    """A failure of the clean-up does not undo the commit."""
    store = EndingStore(tmp_path / "ending")
    saving = new_run(keep=1, store=store)
    saving.save(64)
    store.attempt = saving.attempt
    with pytest.raises(FencedError, match="ended already"):
        saving.save(128)
    assert saving.committed == [64, 128]
    assert saving.run.history().commits[-1].tokens == 128
