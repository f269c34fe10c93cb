"""The measured device, a GPU or a CPU: synchronization, peak memory and peak rate."""

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity

DATA_SHEET = {"H100": 989e12, "H200": 989e12}
"""Dense bf16 rate [operations/s] in NVIDIA's data sheets (SXM), by a part of the card's name."""


class Device:
    """The measured device."""

    def __init__(self, *, rehearse: bool) -> None:
        self.cuda = not rehearse
        self.torch = torch.device("cuda", 0) if self.cuda else torch.device("cpu")
        self.name = torch.cuda.get_device_name(0) if self.cuda else "CPU, rehearsal"
        self.memory = torch.cuda.get_device_properties(0).total_memory if self.cuda else 8 << 30
        self.activity = ProfilerActivity.CUDA if self.cuda else ProfilerActivity.CPU
        self.measured = 1e12
        """Measured rate of a large matrix product [operations/s]."""
        self.sheet = next((rate for part, rate in DATA_SHEET.items() if part in self.name), 1e12)

    def wait(self) -> None:
        """Wait for all submitted work."""
        if self.cuda:
            torch.cuda.synchronize()

    def timed(self, function: Callable[[], object]) -> float:
        """Duration of `function`, including the work that it submits [s]."""
        self.wait()
        began = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - began

    def reset_peak(self) -> None:
        """Restart the measurement of peak memory."""
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> tuple[int, int]:
        """Peak memory of tensors, and peak reserved memory [bytes]; 0 on a CPU."""
        if not self.cuda:
            return 0, 0
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
