"""Measures how long this rank waits for the others in the collectives of a step.

FSDP gathers and reduces throughout a step, and each collective waits for the slowest rank, so a step takes equally long
on every rank. The step time without the waiting is the rank's own time.
"""

import time
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather, DefaultReduceScatter


class CollectiveTimer:
    """Context manager that adds up the time of the collectives inside it: waiting, plus some transport.

    On a CPU this is wall-clock time, because collectives block. On a GPU they only enqueue work, so it is the time
    between two CUDA events around the collective; the first fires when this rank's own input is ready.
    """

    def __init__(self, device: torch.device) -> None:
        self._events: list[tuple[Any, Any]] | None = [] if device.type == "cuda" else None
        self._seconds = self._start = 0.0

    def __enter__(self) -> None:
        if self._events is not None:
            self._events.append((_event(), _event()))
            self._events[-1][0].record()
        self._start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._start

    def collect(self) -> float:
        """The time measured since the last call [s]; resets it."""
        seconds, self._seconds = self._seconds, 0.0
        for start, end in self._events or ():
            end.synchronize()
            seconds += start.elapsed_time(end) / 1e3
        if self._events:
            self._events.clear()
        return seconds

    def instrument(self, model: torch.nn.Module, *, reductions: bool) -> None:
        """Measure FSDP's all-gathers in `model`, and its reduce-scatters if `reductions`."""
        if dist.get_world_size() == 1:
            return
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_custom_all_gather(_AllGather(self))
                if reductions:
                    module.set_custom_reduce_scatter(_ReduceScatter(self))


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class _AllGather(DefaultAllGather):
    """FSDP's all-gather, timed."""

    def __init__(self, timer: CollectiveTimer) -> None:
        self.timer = timer

    def __call__(self, *tensors: Any, **options: Any) -> Any:
        with self.timer:
            return super().__call__(*tensors, **options)


class _ReduceScatter(DefaultReduceScatter):
    """FSDP's reduce-scatter, timed."""

    def __init__(self, timer: CollectiveTimer) -> None:
        self.timer = timer

    def __call__(self, *tensors: Any, **options: Any) -> Any:
        with self.timer:
            return super().__call__(*tensors, **options)
