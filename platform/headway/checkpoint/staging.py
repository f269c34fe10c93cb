"""The copy of a rank's state that a save works from: host memory that is kept from save to save."""

import threading
from collections.abc import Mapping

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from headway.checkpoint.shard import Piece


class Staging:
    """Takes the copy beside the training thread, which must not change the state before `taken` is set.

    Forward and backward only read the state, so the copy runs beside them, and training waits for it just before the
    optimizer's step: mostly not at all.
    """

    def __init__(self) -> None:
        self.taken = threading.Event()
        """Set while no copy is being taken."""
        self.taken.set()
        self._held: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}
        self._current: torch.cuda.Event | None = None
        self._stream: torch.cuda.Stream | None = None

    def begin(self) -> None:
        """Mark the moment that is to be copied, on the training thread."""
        self.taken.clear()
        if torch.cuda.is_available():
            self._current = torch.cuda.current_stream().record_event()

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, torch.Tensor], *, first: bool) -> list[Piece]:
        """Copy this rank's pieces of `tensors`, as torch's save planner cuts them; sets `taken`, come what may."""
        try:
            if self._current:
                self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
                with torch.cuda.stream(self._stream):
                    self._stream.wait_event(self._current)
                    pieces = self._copy(tensors, first=first)
                    self._stream.synchronize()
                return pieces
            return self._copy(tensors, first=first)
        finally:
            self.taken.set()

    def _copy(self, tensors: Mapping[str, torch.Tensor], *, first: bool) -> list[Piece]:
        planner = DefaultSavePlanner()
        planner.set_up_planner(dict(tensors), None, first)
        pieces = []
        for item in planner.create_local_plan().items:
            source, where = planner.resolve_data(item), item.tensor_data
            if where is None or not isinstance(source, torch.Tensor):
                raise TypeError(f"{item.index.fqn}: only tensors are saved in shards")
            if not source.numel():
                continue
            offset = tuple(where.chunk.offsets)
            held = self._room(item.index.fqn, offset, source)
            held.copy_(source, non_blocking=True)
            piece = Piece(
                name=item.index.fqn,
                dtype=str(held.dtype).removeprefix("torch."),
                shape=tuple(where.size),
                offset=offset,
                size=tuple(where.chunk.sizes),
                data=held.view(-1).view(torch.uint8).numpy().data,
            )
            if not held.is_pinned():  # else the GPU is still copying
                _ = piece.checksums  # computed while the bytes are in the cache
            pieces.append(piece)
        return pieces

    def _room(self, name: str, offset: tuple[int, ...], source: torch.Tensor) -> torch.Tensor:
        """Host memory for a piece; pinned where a GPU copies into it."""
        held = self._held.get((name, offset))
        if held is None or held.shape != source.shape or held.dtype != source.dtype:
            held = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.device.type == "cuda")
            self._held[name, offset] = held
        return held
