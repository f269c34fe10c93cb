"""Restores a checkpoint into tensors of any sharding. torch's planner selects the pieces; the reader verifies them.

Each rank plans for itself and reads only what it needs, so ranks exchange nothing, and nothing is unpickled.
"""

import threading
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from headway.checkpoint.manifest import Chunk, Tensor
from headway.checkpoint.read_window import ReadRequest
from headway.checkpoint.reader import StoredCheckpoint
from headway.errors import DamageError


def restore(checkpoint: StoredCheckpoint, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill `tensors`, sharded or whole, in place.

    Raises:
        DamageError: the checkpoint is damaged, or lacks some of these tensors; `tensors` are then a mix of old and new.
    """
    stored = checkpoint.manifest.tensors
    for name, tensor in tensors.items():
        dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
        if name not in stored or (stored[name].dtype, stored[name].shape) != (dtype, shape):
            raise DamageError(f"{checkpoint.commit.manifest}: has no {dtype} tensor {name} of shape {shape}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # on purpose: each rank loads for itself
        try:
            load(dict(tensors), storage_reader=_CheckpointStorageReader(checkpoint), no_dist=True)
        except CheckpointException as wrapped:
            cause, _ = next(iter(wrapped.failures.values()))
            raise cause from None


class _CheckpointStorageReader(StorageReader):
    """Adapter of a stored checkpoint for torch.distributed.checkpoint."""

    def __init__(self, checkpoint: StoredCheckpoint) -> None:
        self.checkpoint = checkpoint

    def reset(self, checkpoint_id: Any = None) -> None:
        """Do nothing: the reader keeps no state between loads."""

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> Metadata:
        return Metadata({name: _metadata(tensor) for name, tensor in self.checkpoint.manifest.tensors.items()})

    def set_up_storage_reader(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: the manifest has all that is needed."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        chunks = {
            (name, chunk.offset): (tensor, chunk)
            for name, tensor in self.checkpoint.manifest.tensors.items()
            for chunk in tensor.chunks
        }
        targets = [(item, planner.resolve_tensor(item)) for item in plan.items]
        places = [(item.storage_index.fqn, tuple(item.storage_index.offset or ())) for item in plan.items]
        self.checkpoint.stream(_read_request(*chunks[p], *target) for p, target in zip(places, targets, strict=True))
        for item, target in targets:
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, _checkpoint_id: Any) -> bool:
        return True


def _read_request(tensor: Tensor, chunk: Chunk, item: ReadItem, target: torch.Tensor) -> ReadRequest:
    """The request for the part of a chunk that goes into `target`; for whole rows it covers only those rows."""
    dtype, target = getattr(torch, tensor.dtype), target.detach()
    offsets, lengths = tuple(item.storage_offsets), tuple(item.lengths)
    if lengths[1:] == chunk.size[1:] and target.is_contiguous():
        row = chunk.length // chunk.size[0] if chunk.size else chunk.length
        start = offsets[0] * row if offsets else 0
        flat = target.view(-1).view(torch.uint8)

        def write(at: int, data: memoryview) -> None:
            flat[at : at + data.nbytes].copy_(torch.frombuffer(data, dtype=torch.uint8))

        return ReadRequest(chunk, start, start + flat.numel(), write)

    whole = torch.empty(chunk.size, dtype=dtype)  # parts of rows are rare, so the whole chunk is read
    flat = whole.view(-1).view(torch.uint8)
    missing = [chunk.length]
    lock = threading.Lock()

    def write_part(at: int, data: memoryview) -> None:
        flat[at : at + data.nbytes] = torch.frombuffer(data, dtype=torch.uint8)
        with lock:
            missing[0] -= data.nbytes
            complete = not missing[0]
        if complete:
            target.copy_(whole[tuple(slice(o, o + n) for o, n in zip(offsets, lengths, strict=True))])

    return ReadRequest(chunk, 0, chunk.length, write_part)


def _metadata(tensor: Tensor) -> TensorStorageMetadata:
    return TensorStorageMetadata(
        TensorProperties(getattr(torch, tensor.dtype)),
        torch.Size(tensor.shape),
        [ChunkStorageMetadata(torch.Size(chunk.offset), torch.Size(chunk.size)) for chunk in tensor.chunks],
    )
