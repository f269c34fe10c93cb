"""The reader makes few requests for many tensors, verifies every block, and reads nothing in vain."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tests.unit.checkpoint.conftest import NewRun

from headway.checkpoint import read_window
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.restore import restore
from headway.errors import DamageError
from headway.objectstore.folder import FolderStore


class CountingStore(FolderStore):
    """A folder store that records the length of each read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lengths: list[int] = []

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read, and record the length."""
        self.lengths.append(buffer.nbytes)
        return super().fill(key, buffer, start)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    """An empty store that records reads."""
    return CountingStore(tmp_path)


def many() -> dict[str, torch.Tensor]:
    """A hundred tensors of 400 bytes."""
    return {f"model.{number:03}": torch.full((100,), float(number)) for number in range(100)}


def test_neighbors_in_a_shard_are_read_together(new_run: NewRun, store: CountingStore) -> None:
    """All tensors of a shard take one request if they fit into one."""
    saved = many()
    checkpoint = StoredCheckpoint(store, new_run().save(64, saved))
    restored = {name: torch.zeros_like(tensor) for name, tensor in saved.items()}
    restore(checkpoint, restored)
    assert store.lengths == [40_000]
    assert all(torch.equal(restored[name], saved[name]) for name in saved)


def test_what_is_read_at_once_has_a_bound(
    new_run: NewRun, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many neighbors there are, no request exceeds the window."""
    monkeypatch.setattr(read_window, "WINDOW_BYTES", 1_000)
    saved = many()
    checkpoint = StoredCheckpoint(store, new_run().save(64, saved))
    restored = {name: torch.zeros_like(tensor) for name, tensor in saved.items()}
    restore(checkpoint, restored)
    assert store.lengths == [800] * 50
    assert all(torch.equal(restored[name], saved[name]) for name in saved)


def test_only_requested_tensors_are_read(new_run: NewRun, store: CountingStore) -> None:
    """Two tensors with a third between them are two requests."""
    checkpoint = StoredCheckpoint(store, new_run().save(64, many()))
    restored = {name: torch.zeros(100) for name in ("model.001", "model.003")}
    restore(checkpoint, restored)
    assert store.lengths == [400, 400]
    assert restored["model.003"].eq(3.0).all()


def test_damage_to_one_of_those_read_together_is_found(new_run: NewRun, store: CountingStore) -> None:
    """Each tensor is verified by itself, and the message says where the damage is."""
    saved = many()
    checkpoint = StoredCheckpoint(store, new_run().save(64, saved))
    chunk = checkpoint.manifest.tensors["model.050"].chunks[0]
    path = store.root / checkpoint.manifest.shards[0].key
    data = bytearray(path.read_bytes())
    data[chunk.start + 200] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamageError, match=f"bytes {chunk.start:,} to {chunk.start + 400:,} are not those"):
        restore(checkpoint, {name: torch.zeros_like(tensor) for name, tensor in saved.items()})


def test_a_read_that_hangs_holds_up_no_other_checkpoint(new_run: NewRun, store: CountingStore) -> None:
    """`functools.cached_property` would: until Python 3.12 it has one lock for all objects of a class."""
    commit = new_run().save(64, {"model.w": torch.ones(4)})
    hanging, go_on = threading.Event(), threading.Event()

    class HangingStore(FolderStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            hanging.set()
            go_on.wait()
            return super().get(key, start, length)

    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(lambda: StoredCheckpoint(HangingStore(store.root), commit).manifest)
        try:
            assert hanging.wait(60)
            assert threads.submit(lambda: StoredCheckpoint(store, commit).manifest).result(60).tokens == 64
        finally:
            go_on.set()
        assert slow.result().tokens == 64
