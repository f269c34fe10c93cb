"""The one seam between a GPU and a CPU: how to wait for it, what memory it took, how fast it multiplies."""

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity

SHEET = {"H100": 989e12, "H200": 989e12}
"""Dense bf16 operations a second by NVIDIA's data sheets (SXM), by a part of the card's name."""


class Device:
    """The device that is measured."""

    def __init__(self, *, rehearse: bool) -> None:
        self.cuda = not rehearse
        self.torch = torch.device("cuda", 0) if self.cuda else torch.device("cpu")
        self.name = torch.cuda.get_device_name(0) if self.cuda else "CPU, rehearsal"
        self.memory = torch.cuda.get_device_properties(0).total_memory if self.cuda else 8 << 30
        self.activity = ProfilerActivity.CUDA if self.cuda else ProfilerActivity.CPU
        self.measured = 1e12
        """Rate of a large matrix product, once it was measured [operations/s]."""
        self.sheet = next((rate for part, rate in SHEET.items() if part in self.name), 1e12)

    def wait(self) -> None:
        """Wait until all that was begun is done."""
        if self.cuda:
            torch.cuda.synchronize()

    def timed(self, function: Callable[[], object]) -> float:
        """How long `function` takes, to the end of what it began [s]."""
        self.wait()
        began = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - began

    def forget_peak(self) -> None:
        """Count the most memory from now on."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> tuple[int, int]:
        """The most memory that tensors filled, and that was reserved for them [bytes]; 0 on a CPU."""
        if not self.cuda:
            return 0, 0
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
