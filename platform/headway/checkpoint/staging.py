"""The host copy of a rank's state that a save uploads. Its memory is kept from save to save."""

import threading
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import WriteItem

from headway.checkpoint.ring import Bytes, CopyStream, CudaCopyStream, Ring, copy_with_checksums
from headway.checkpoint.shard import Piece


class Staging:
    """Copies the state in a background thread; the training thread must not change it until `copied` is set.

    Forward and backward only read the state, so the copy runs beside them. Training waits for it before the optimizer
    step, and mostly not at all.

    Host memory: the size of the rank's part of the state, in one allocation that is not pinned; for a GPU also
    `BUFFERS * BUFFER_BYTES` of pinned memory, whatever the size of the state.
    """

    def __init__(self, stream: CopyStream | None = None) -> None:
        """Without a `stream`, the device of the tensors decides: a CUDA stream for a GPU, none for a CPU."""
        self.copied = threading.Event()
        """Set unless a copy is in progress."""
        self.copied.set()
        self._host: Bytes = np.empty(0, np.uint8)
        self._stream = stream
        self._ring: Ring | None = None

    def begin(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Mark the moment whose state is copied; on the training thread."""
        self.copied.clear()
        if not self._stream and any(tensor.device.type == "cuda" for tensor in tensors.values()):
            self._stream = CudaCopyStream()
        if self._stream:
            self._stream.sync_with_training()

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, torch.Tensor], *, is_coordinator: bool) -> list[Piece]:
        """Copy this rank's pieces of `tensors`, as torch's save planner cuts them. Sets `copied` even on failure.

        `is_coordinator` is an argument of the planner: True on rank 0.
        """
        try:
            if not self._stream:
                return self._copy(tensors, is_coordinator=is_coordinator)
            with self._stream.activate():
                self._ring = self._ring or Ring(self._stream)
                return self._copy(tensors, is_coordinator=is_coordinator)
        finally:
            self.copied.set()

    def close(self) -> None:
        """Let the threads end."""
        if self._ring:
            self._ring.close()

    def _copy(self, tensors: Mapping[str, torch.Tensor], *, is_coordinator: bool) -> list[Piece]:
        items = _local_items(tensors, is_coordinator=is_coordinator)
        targets = self._targets([source.nbytes for _, source in items])
        pairs = ((_as_bytes(source), target) for (_, source), target in zip(items, targets, strict=True))
        if self._ring:
            checksums = self._ring.copy(pairs, self.copied.set)
        else:
            checksums = [copy_with_checksums(source.numpy(), target) for source, target in pairs]
        return [
            Piece(
                name=item.index.fqn,
                dtype=str(source.dtype).removeprefix("torch."),
                shape=tuple(item.tensor_data.size),
                offset=tuple(item.tensor_data.chunk.offsets),
                size=tuple(item.tensor_data.chunk.sizes),
                data=target.data,
                checksums=sums,
            )
            for (item, source), target, sums in zip(items, targets, checksums, strict=True)
            if item.tensor_data
        ]

    def _targets(self, lengths: Sequence[int]) -> list[Bytes]:
        """Host memory for the pieces, in the order of the shard."""
        if self._host.nbytes != sum(lengths):
            self._host = np.empty(0, np.uint8)  # free the old memory before the new allocation
            self._host = np.empty(sum(lengths), np.uint8)  # not torch.empty, which may fill it and uses small pages
        return [self._host[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]


def _local_items(tensors: Mapping[str, torch.Tensor], *, is_coordinator: bool) -> list[tuple[WriteItem, torch.Tensor]]:
    """The pieces that this rank saves, according to torch's planner."""
    planner = DefaultSavePlanner()
    planner.set_up_planner(dict(tensors), None, is_coordinator)
    items = []
    for item in planner.create_local_plan().items:
        source = planner.resolve_data(item)
        if item.tensor_data is None or not isinstance(source, torch.Tensor):
            raise TypeError(f"{item.index.fqn}: only tensors are saved in shards")
        if source.numel():
            items.append((item, source.detach()))
    return items


def _as_bytes(source: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor; no copy if it is contiguous, as FSDP's shards are."""
    return source.reshape(-1).view(torch.uint8)
