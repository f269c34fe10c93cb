"""How long this rank waits for the others, measured where it meets them: in the collectives of a step.

FSDP gathers and reduces all through a step, and each time all ranks wait for the last one, so that a step takes equally
long on every rank. What is left of it without the waiting is a rank's own.
"""

import time
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather, DefaultReduceScatter


class CollectiveTimer:
    """Adds up the time of blocks in which this rank meets the others: what they take is waiting, and some transport.

    On a CPU that is wall clock, for there a collective returns when it is done. A GPU is told to wait, and the process
    goes on: there it is the time between two events in the collective's stream, the first of which comes when the
    stream has all that this rank brings.
    """

    def __init__(self, device: torch.device) -> None:
        self._events: list[tuple[Any, Any]] | None = [] if device.type == "cuda" else None
        self._seconds = self._since = 0.0

    def __enter__(self) -> None:
        if self._events is not None:
            self._events.append((_event(), _event()))
            self._events[-1][0].record()
        self._since = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._since

    def take(self) -> float:
        """The time of all blocks since this was last asked [s]."""
        seconds, self._seconds = self._seconds, 0.0
        for began, ended in self._events or ():
            ended.synchronize()
            seconds += began.elapsed_time(ended) / 1e3
        if self._events:
            self._events.clear()
        return seconds

    def watch(self, model: torch.nn.Module, *, reductions: bool) -> None:
        """Measure FSDP's own collectives in `model`: the gathers, and if asked the `reductions`."""
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
    """FSDP's all-gather, measured."""

    def __init__(self, waiting: CollectiveTimer) -> None:
        self.waiting = waiting

    def __call__(self, *tensors: Any, **options: Any) -> Any:
        with self.waiting:
            return super().__call__(*tensors, **options)


class _ReduceScatter(DefaultReduceScatter):
    """FSDP's reduce-scatter, measured."""

    def __init__(self, waiting: CollectiveTimer) -> None:
        self.waiting = waiting

    def __call__(self, *tensors: Any, **options: Any) -> Any:
        with self.waiting:
            return super().__call__(*tensors, **options)
