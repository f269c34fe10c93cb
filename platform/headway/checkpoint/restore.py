"""Reading a checkpoint into tensors of any sharding: torch's load planner says which pieces, this brings them verified.

Each rank plans for itself and reads only what it needs, so nothing is exchanged between ranks and nothing unpickled.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from headway.checkpoint.manifest import Chunk, Tensor
from headway.checkpoint.stored import StoredCheckpoint
from headway.errors import DamageError


def restore(checkpoint: StoredCheckpoint, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill `tensors`, sharded or whole, in place.

    Raises:
        DamageError: the checkpoint is damaged, or does not hold these tensors; `tensors` are then part old, part new.
    """
    stored = checkpoint.manifest.tensors
    for name, tensor in tensors.items():
        if name not in stored or stored[name].shape != tuple(tensor.shape):
            raise DamageError(f"{checkpoint.commit.manifest}: has no tensor {name} of shape {tuple(tensor.shape)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # on purpose: each rank loads for itself
        try:
            load(dict(tensors), storage_reader=_Reader(checkpoint), no_dist=True)
        except CheckpointException as wrapped:
            cause, _ = next(iter(wrapped.failures.values()))
            raise cause from None


class _Reader(StorageReader):
    """torch.distributed.checkpoint's view of a stored checkpoint."""

    def __init__(self, checkpoint: StoredCheckpoint) -> None:
        self.checkpoint = checkpoint

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept between loads."""

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> Metadata:
        return Metadata({name: _metadata(tensor) for name, tensor in self.checkpoint.manifest.tensors.items()})

    def set_up_storage_reader(self, *_args: Any, **_kwargs: Any) -> None:
        """All is known from the manifest."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_place = {
            MetadataIndex(name, chunk.offset): (tensor, chunk)
            for name, tensor in self.checkpoint.manifest.tensors.items()
            for chunk in tensor.chunks
        }
        read: dict[MetadataIndex, torch.Tensor] = {}
        for item in plan.items:
            place = MetadataIndex(item.storage_index.fqn, tuple(item.storage_index.offset or ()))
            if place not in read:
                read = {place: self._chunk(*by_place[place])}  # items come chunk by chunk: keep just one
            piece = read[place]
            for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                piece = piece.narrow(dim, start, length)
            target = planner.resolve_tensor(item)
            target.detach().copy_(piece)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _chunk(self, tensor: Tensor, chunk: Chunk) -> torch.Tensor:
        data = bytearray(self.checkpoint.chunk(chunk))
        return torch.frombuffer(data, dtype=getattr(torch, tensor.dtype)).reshape(chunk.size)

    @classmethod
    def validate_checkpoint_id(cls, _checkpoint_id: Any) -> bool:
        return True


def _metadata(tensor: Tensor) -> TensorStorageMetadata:
    return TensorStorageMetadata(
        TensorProperties(getattr(torch, tensor.dtype)),
        torch.Size(tensor.shape),
        [ChunkStorageMetadata(torch.Size(chunk.offset), torch.Size(chunk.size)) for chunk in tensor.chunks],
    )
