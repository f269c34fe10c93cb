"""Fixing all that could change bits from one attempt to the next, and saying what it was.

With `determinism: bitwise` torch is strict: an operation without a deterministic kernel is an error that names it. If
torch only warned, the backward passes of flash and memory-efficient attention would go on without their order.
"""

import os
from importlib.metadata import version
from pathlib import Path

import torch

import headway
from headway.checkpoint.manifest import Environment
from headway.recipe import Recipe

VERSION = 2
"""Grows when a release changes, on purpose, the order or the rounding of the sums that training is made of."""
GRAPHS = 64
"""Compiled variants of a block: by length of sequences, of documents (powers of two), and with or without gradients."""
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment: what cuBLAS may use beside its results; with other settings its products may differ from run to run."""


def precision(recipe: Recipe, device: torch.device) -> str:
    """`bf16` or `fp32`: what `auto` means on this device."""
    if recipe.train.precision != "auto":
        return recipe.train.precision
    return "bf16" if device.type == "cuda" else "fp32"


def fix(recipe: Recipe, device: torch.device) -> None:
    """Fix what this process computes with. Called before it first computes on `device`: cuBLAS looks once."""
    bitwise = recipe.train.determinism == "bitwise"
    torch.set_num_threads(recipe.train.threads)
    torch.use_deterministic_algorithms(bitwise)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # else each new buffer is filled, to show who reads unwritten ones
    if recipe.train.compile:
        from torch._dynamo import config as dynamo  # slow to import
        from torch._inductor import config as inductor

        inductor.deterministic = bitwise  # else reductions are cut as is fastest at the moment
        dynamo.recompile_limit = GRAPHS
        dynamo.fail_on_recompile_limit_hit = bitwise  # else the rest goes on uncompiled, with other bits
    if device.type != "cuda":
        return
    if bitwise:
        os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = not bitwise
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = bitwise, False


def environment(recipe: Recipe, device: torch.device) -> Environment:
    """What arithmetic depends on, besides the recipe."""
    cuda = device.type == "cuda"
    return Environment(
        device=torch.cuda.get_device_name(device) if cuda else _processor(),
        precision=precision(recipe, device),
        threads=recipe.train.threads,
        torch=torch.__version__,
        headway=headway.__version__,
        arithmetic=VERSION,
        settings=_settings(recipe, device),
    )


def differences(before: Environment, now: Environment) -> str:
    """What has changed in the environment, in words; empty if nothing has. Another Headway alone changes no bits."""
    old, new = (each.model_dump(exclude={"headway", "settings"}) for each in (before, now))
    if before.arithmetic > 1:  # settings are recorded from then on
        old, new = old | before.settings, new | now.settings
    return ", ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in old | new if old.get(key) != new.get(key))


def _settings(recipe: Recipe, device: torch.device) -> dict[str, str]:
    """What torch was told where it could choose, as it says itself, and the versions of what it calls."""
    found = {}
    if recipe.train.compile:
        from torch._inductor import config as inductor  # slow to import

        found["deterministic reductions in compiled code"] = str(inductor.deterministic)
    if device.type != "cuda":
        return found
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return found | {
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "cuda": str(torch.version.cuda),
        "cudnn": str(cudnn.version()),  # type: ignore[no-untyped-call]
        "cudnn deterministic": str(cudnn.deterministic),
        "triton": version("triton"),
        "cublas workspace": os.environ.get(CUBLAS_WORKSPACE, "default"),
        "tf32": str(matmul.allow_tf32),
        "bf16 reductions": str(matmul.allow_bf16_reduced_precision_reduction),
    }


def _processor() -> str:
    """Name of the CPU, with the instruction set that torch uses of it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'} ({torch.backends.cpu.get_cpu_capability()})"
