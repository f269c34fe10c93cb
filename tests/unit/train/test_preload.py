"""The preloaded modules of the forkserver."""

import subprocess
import sys

SPY = """
import torch, torch.cuda
calls = []
torch._C._cuda_getDeviceCount = lambda: calls.append(1) or 1
torch.cuda._device_count_nvml = lambda: 1
import headway.train.preload
import torch._inductor.runtime.benchmarking  # torch 2.11 asks as it is loaded
assert torch.cuda.is_available()
print(len(calls))
"""


def test_asking_for_a_gpu_before_the_fork_leaves_it_to_the_ranks() -> None:
    """The forkserver never calls the CUDA driver, because its ranks could not use CUDA then."""
    done = subprocess.run([sys.executable, "-c", SPY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
