"""A rank restores any rectangle of a tensor, and reads no more blocks than whole rows touch."""

from pathlib import Path

import pytest
import torch
from tests.unit.checkpoint.conftest import NewRun
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import LoadItemType, ReadItem

from headway.checkpoint import manifest, read_window, reader
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.restore import _read_request
from headway.objectstore.folder import FolderStore

BLOCK = 64
"""Bytes per block in these tests."""


class CountingStore(FolderStore):
    """A folder store that counts the bytes read."""

    read = 0

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read, and count the bytes."""
        self.read += buffer.nbytes
        return super().fill(key, buffer, start)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountingStore:
    """A store that counts; checkpoints have small blocks."""
    monkeypatch.setattr(manifest, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(reader, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(read_window, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(read_window, "WINDOW_BYTES", 4 * BLOCK)
    return CountingStore(tmp_path)


@pytest.mark.parametrize(
    ("offsets", "lengths", "most"),
    [
        ((0, 0), (40, 8), 40 * 32),
        ((10, 0), (10, 8), 10 * 32 + 2 * BLOCK),
        ((39, 0), (1, 8), 2 * BLOCK),
        ((0, 2), (40, 3), 40 * 32),
        ((7, 5), (9, 3), 40 * 32),
    ],
    ids=["whole", "rows", "last row", "columns", "rectangle"],
)
def test_any_rectangle_comes_back_and_rows_are_read_alone(
    new_run: NewRun,
    store: CountingStore,
    offsets: tuple[int, int],
    lengths: tuple[int, int],
    most: int,
) -> None:
    """Whole rows cost the blocks that they touch; parts of rows are correct too, but cost the whole chunk."""
    whole = torch.arange(320, dtype=torch.float32).reshape(40, 8)
    checkpoint = StoredCheckpoint(store, new_run().save(64, {"model.w": whole}))
    tensor = checkpoint.manifest.tensors["model.w"]
    assert len(tensor.chunks[0].checksums) == 20
    target = torch.zeros(lengths)
    item = ReadItem(
        type=LoadItemType.TENSOR,
        dest_index=MetadataIndex("model.w"),
        dest_offsets=torch.Size((0, 0)),
        storage_index=MetadataIndex("model.w"),
        storage_offsets=torch.Size(offsets),
        lengths=torch.Size(lengths),
    )
    checkpoint.stream([_read_request(tensor, tensor.chunks[0], item, target)])
    (top, left), (rows, columns) = offsets, lengths
    assert torch.equal(target, whole[top : top + rows, left : left + columns])
    assert store.read <= most
