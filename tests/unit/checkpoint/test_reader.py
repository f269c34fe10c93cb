"""Reading a checkpoint: few requests whatever the number of tensors, every block checked, nothing read in vain."""

from pathlib import Path

import pytest
import torch
from tests.unit.checkpoint.conftest import Keep

from headway.checkpoint import reader
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.restore import restore
from headway.errors import DamageError
from headway.objectstore.folder import FolderStore


class CountingStore(FolderStore):
    """A folder that notes the reads into buffers."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lengths: list[int] = []

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read, and note how much was asked for."""
        self.lengths.append(buffer.nbytes)
        return super().fill(key, buffer, start)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    """A store that counts."""
    return CountingStore(tmp_path)


def many() -> dict[str, torch.Tensor]:
    """A hundred tensors of 400 bytes."""
    return {f"model.{number:03}": torch.full((100,), float(number)) for number in range(100)}


def test_neighbours_in_a_shard_are_read_together(keeping: Keep, store: CountingStore) -> None:
    """All tensors of a shard take one request, if they are not too large for one."""
    saved = many()
    checkpoint = StoredCheckpoint(store, keeping().save(64, saved))
    found = {name: torch.zeros_like(tensor) for name, tensor in saved.items()}
    restore(checkpoint, found)
    assert store.lengths == [40_000]
    assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_what_is_read_at_once_has_a_bound(keeping: Keep, store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many neighbours there are, a request stays small enough to hold."""
    monkeypatch.setattr(reader, "WINDOW_BYTES", 1_000)
    saved = many()
    checkpoint = StoredCheckpoint(store, keeping().save(64, saved))
    found = {name: torch.zeros_like(tensor) for name, tensor in saved.items()}
    restore(checkpoint, found)
    assert store.lengths == [800] * 50
    assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_what_is_not_wanted_is_not_read(keeping: Keep, store: CountingStore) -> None:
    """Two tensors with a third between them are two requests."""
    checkpoint = StoredCheckpoint(store, keeping().save(64, many()))
    found = {name: torch.zeros(100) for name in ("model.001", "model.003")}
    restore(checkpoint, found)
    assert store.lengths == [400, 400]
    assert found["model.003"].eq(3.0).all()


def test_damage_to_one_of_those_read_together_is_found(keeping: Keep, store: CountingStore) -> None:
    """Each of them is checked by itself, and the message says where the damage lies."""
    saved = many()
    checkpoint = StoredCheckpoint(store, keeping().save(64, saved))
    chunk = checkpoint.manifest.tensors["model.050"].chunks[0]
    path = store.root / checkpoint.manifest.shards[0].key
    data = bytearray(path.read_bytes())
    data[chunk.start + 200] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamageError, match=f"bytes {chunk.start:,} to {chunk.start + 400:,} are not those"):
        restore(checkpoint, {name: torch.zeros_like(tensor) for name, tensor in saved.items()})
