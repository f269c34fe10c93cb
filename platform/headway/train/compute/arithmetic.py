"""Torch settings that decide the bits of a run, and their record in checkpoints.

With `determinism: bitwise`, an operation without a deterministic kernel raises an error that names it. A warning would
not do: the backward passes of flash and memory-efficient attention would then go on without a fixed order of sums.
"""

import os
from importlib.metadata import version

import torch

import headway
from headway.checkpoint.manifest import Environment
from headway.model import ARCHITECTURES
from headway.recipe import Recipe
from headway.train.compute.cpu import processor_name
from headway.train.compute.optimizer import OPTIMIZERS

VERSION = 2
"""Increased when a release deliberately changes the order or rounding of sums in training."""
MAX_GRAPHS = 64
"""Limit on the compiled variants of a block: by sequence length, document length (powers of two), gradients or none."""
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable: the workspace of cuBLAS. With other settings its products may differ from run to run."""


def precision(recipe: Recipe, device: torch.device) -> str:
    """`bf16` or `fp32`; resolves `auto` for this device."""
    if recipe.train.precision != "auto":
        return recipe.train.precision
    return "bf16" if device.type == "cuda" else "fp32"


def configure(recipe: Recipe, device: torch.device) -> None:
    """Configure torch as the recipe says, before the first computation on `device`: cuBLAS reads its settings once."""
    bitwise = recipe.train.determinism == "bitwise"
    torch.set_num_threads(recipe.train.threads)
    torch.use_deterministic_algorithms(bitwise)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it only slows down: it fills each new buffer
    if recipe.train.compile:
        from torch._dynamo import config as dynamo  # slow to import
        from torch._inductor import config as inductor

        inductor.deterministic = bitwise  # else the split of a reduction depends on timings
        dynamo.recompile_limit = MAX_GRAPHS
        dynamo.fail_on_recompile_limit_hit = bitwise  # else further variants run uncompiled, with other bits
    if device.type != "cuda":
        return
    if bitwise:
        os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = not bitwise
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = bitwise, False


def environment(recipe: Recipe, device: torch.device) -> Environment:
    """All that the arithmetic depends on besides the recipe."""
    cuda = device.type == "cuda"
    return Environment(
        device=torch.cuda.get_device_name(device) if cuda else processor_name(),
        precision=precision(recipe, device),
        threads=recipe.train.threads,
        torch=torch.__version__,
        headway=headway.__version__,
        arithmetic=VERSION,
        settings=_packages(recipe) | _settings(recipe, device),
    )


def differences(before: Environment, now: Environment) -> str:
    """The differences between two environments in words; empty if none. A new Headway alone changes no bits."""
    old, new = (each.model_dump(exclude={"headway", "settings"}) for each in (before, now))
    if before.arithmetic > 1:  # version 1 did not record settings
        old, new = old | before.settings, new | now.settings
    return ", ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in old | new if old.get(key) != new.get(key))


def _packages(recipe: Recipe) -> dict[str, str]:
    """Names and versions of the packages that the optimizer and the architecture come from, if not built in."""
    packages = {
        "package of model.kind": ARCHITECTURES.package(recipe.model.kind),
        "package of train.optimizer.kind": OPTIMIZERS.package(recipe.train.optimizer.kind),
    }
    return {key: package for key, package in packages.items() if package}


def _settings(recipe: Recipe, device: torch.device) -> dict[str, str]:
    """Settings that torch reports, and versions of the libraries that it calls."""
    settings = {}
    if recipe.train.compile:
        from torch._inductor import config as inductor  # slow to import

        settings["deterministic reductions in compiled code"] = str(inductor.deterministic)
    if device.type != "cuda":
        return settings
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return settings | {
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "cuda": str(torch.version.cuda),
        "cudnn": str(cudnn.version()),  # type: ignore[no-untyped-call]
        "cudnn deterministic": str(cudnn.deterministic),
        "triton": version("triton"),
        "cublas workspace": os.environ.get(CUBLAS_WORKSPACE, "default"),
        "tf32": str(matmul.allow_tf32),
        "bf16 reductions": str(matmul.allow_bf16_reduced_precision_reduction),
    }
