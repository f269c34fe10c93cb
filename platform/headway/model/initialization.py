"""Initial parameters: a function of the seed and the parameter's name, the same for any number of ranks."""

import hashlib

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from headway.model.language_model import LanguageModel, Normal


@torch.no_grad()
def initialize(model: LanguageModel, seed: int) -> None:
    """Fill every parameter of `model`, sharded (DTensor) or not, in place, from its initial distribution.

    Each rank draws each parameter whole, in fp32 on the CPU, from a generator of its own, and keeps its slice. So the
    bits are equal for every world size. Memory: the largest parameter, once.
    """
    for name, parameter in model.named_parameters():
        copy_slice(parameter, draw(name, tuple(parameter.shape), seed, model.initial(name)))


def draw(name: str, shape: tuple[int, ...], seed: int, initial: Normal) -> Tensor:
    """Initial value of the parameter `name`: whole, fp32, on the CPU."""
    whole = torch.empty(shape, dtype=torch.float32, device="cpu")
    if not initial.deviation:
        return whole.fill_(initial.mean)
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big"))
    return whole.normal_(initial.mean, initial.deviation, generator=generator)


@torch.no_grad()
def copy_slice(parameter: Tensor, whole: Tensor) -> None:
    """Copy `whole` into `parameter`; for a DTensor, only the slice of this rank."""
    if not isinstance(parameter, DTensor):
        parameter.copy_(whole)
        return
    shape, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    for dimension, (length, start) in enumerate(zip(shape, offset, strict=True)):
        whole = whole.narrow(dimension, start, length)
    parameter.to_local().copy_(whole)
