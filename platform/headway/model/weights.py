"""Initial parameters: a function of the seed and the parameter's name, the same for any number of ranks."""

import hashlib
import math

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from headway.model.decoder import Decoder

DEVIATION = 0.02
"""Standard deviation of an initial matrix (Radford et al. 2019, GPT-2)."""
RESIDUAL = ("attention.output.weight", "feed_forward.down.weight")
"""Matrices that write to the residual stream. They are scaled by 1/sqrt(2 * layers), so that the variance of the stream
does not grow with depth (Radford et al. 2019, section 2.3)."""


@torch.no_grad()
def initialize(model: Decoder, seed: int) -> None:
    """Fill every parameter of `model`, sharded (DTensor) or not, in place: norms with 1, matrices with normal noise.

    Each rank draws each parameter whole, in fp32 on the CPU, from a generator of its own, and keeps its slice. So the
    bits are equal for every world size. Memory: the largest parameter, once.
    """
    for name, parameter in model.named_parameters():
        copy_slice(parameter, draw(name, tuple(parameter.shape), seed, model.model.layers))


def draw(name: str, shape: tuple[int, ...], seed: int, layers: int) -> Tensor:
    """Initial value of the parameter `name` in a model of `layers` layers: whole, fp32, on the CPU."""
    whole = torch.empty(shape, dtype=torch.float32, device="cpu")
    if name.endswith("norm.weight"):
        return whole.fill_(1.0)
    deviation = DEVIATION / math.sqrt(2 * layers) if name.endswith(RESIDUAL) else DEVIATION
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big"))
    return whole.normal_(0.0, deviation, generator=generator)


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
