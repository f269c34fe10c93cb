"""The copy of a rank's state that a save works from: host memory that is kept from save to save."""

import threading
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.planner import WriteItem

from headway.checkpoint.ring import Bytes, CudaRoute, Ring, Route, copy_and_sum
from headway.checkpoint.shard import Piece


class Staging:
    """Takes the copy beside the training thread, which must not change the state before `taken` is set.

    Forward and backward only read the state, so the copy runs beside them, and training waits for it just before the
    optimizer's step: mostly not at all.

    Host memory, kept from save to save: as many bytes as the rank's share of the state has, in one stretch and not
    pinned; from a GPU, `BUFFERS * BUFFER_BYTES` pinned ones besides, whatever the size of the state.
    """

    def __init__(self, route: Route | None = None) -> None:
        """`route` is the way from the device, which the tensors tell if it is not given: none from a CPU."""
        self.taken = threading.Event()
        """Set while no copy is being taken."""
        self.taken.set()
        self._host: Bytes = np.empty(0, np.uint8)
        self._route = route
        self._ring: Ring | None = None

    def begin(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Mark the moment at which `tensors` are to be copied, on the training thread."""
        self.taken.clear()
        if not self._route and any(tensor.device.type == "cuda" for tensor in tensors.values()):
            self._route = CudaRoute()
        if self._route:
            self._route.follow()

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, torch.Tensor], *, first: bool) -> list[Piece]:
        """Copy this rank's pieces of `tensors`, as torch's save planner cuts them; sets `taken`, come what may."""
        try:
            if not self._route:
                return self._copy(tensors, first=first)
            with self._route.own():
                self._ring = self._ring or Ring(self._route)
                return self._copy(tensors, first=first)
        finally:
            self.taken.set()

    def close(self) -> None:
        """Let go of threads."""
        if self._ring:
            self._ring.close()

    def _copy(self, tensors: Mapping[str, torch.Tensor], *, first: bool) -> list[Piece]:
        items = _held(tensors, first=first)
        rooms = self._rooms([source.nbytes for _, source in items])
        pairs = ((_flat(source), room) for (_, source), room in zip(items, rooms, strict=True))
        if self._ring:
            sums = self._ring.bring(pairs, self.taken.set)
        else:
            sums = [copy_and_sum(source.numpy(), room) for source, room in pairs]
        return [
            Piece(
                name=item.index.fqn,
                dtype=str(source.dtype).removeprefix("torch."),
                shape=tuple(item.tensor_data.size),
                offset=tuple(item.tensor_data.chunk.offsets),
                size=tuple(item.tensor_data.chunk.sizes),
                data=room.data,
                checksums=found,
            )
            for (item, source), room, found in zip(items, rooms, sums, strict=True)
            if item.tensor_data
        ]

    def _rooms(self, lengths: Sequence[int]) -> list[Bytes]:
        """Host memory for pieces, one after the other as in their shard."""
        if self._host.nbytes != sum(lengths):
            self._host = np.empty(0, np.uint8)  # given back before more is taken
            self._host = np.empty(sum(lengths), np.uint8)  # not of torch, which may fill it, and takes small pages
        return [self._host[end - length : end] for length, end in zip(lengths, accumulate(lengths), strict=True)]


def _held(tensors: Mapping[str, torch.Tensor], *, first: bool) -> list[tuple[WriteItem, torch.Tensor]]:
    """The pieces that this rank saves, as torch's planner names them."""
    planner = DefaultSavePlanner()
    planner.set_up_planner(dict(tensors), None, first)
    items = []
    for item in planner.create_local_plan().items:
        source = planner.resolve_data(item)
        if item.tensor_data is None or not isinstance(source, torch.Tensor):
            raise TypeError(f"{item.index.fqn}: only tensors are saved in shards")
        if source.numel():
            items.append((item, source.detach()))
    return items


def _flat(source: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, without a copy if it is contiguous, as FSDP's are."""
    return source.reshape(-1).view(torch.uint8)
