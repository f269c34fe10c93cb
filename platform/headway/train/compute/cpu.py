"""The CPU of this machine, according to /proc/cpuinfo."""

import hashlib
from pathlib import Path

import torch

KIND_FIELDS = ("model name", "flags", "CPU implementer", "CPU part", "Features")
"""Fields that tell one kind of processor from another."""


def processor_name() -> str:
    """Model of the CPU, and the instruction set that torch uses."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'} ({torch.backends.cpu.get_cpu_capability()})"


def processor_digest() -> str:
    """Digest of the CPU's model and instruction set. Machines with equal digests can share native code."""
    first_core, _, _ = _cpuinfo().partition("\n\n")
    lines = [line for line in first_core.splitlines() if line.startswith(KIND_FIELDS)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8")
