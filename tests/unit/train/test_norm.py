"""The norm equals torch's, and clipping scales a gradient down to the limit."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from headway.train.compute.norm import clip, fast_norm, ordered_norm

SHAPES = [(7, 5), (1, 1), (3,), (4, 3, 2), (16, 33), (1, 64)]


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    """A mesh of one gloo rank, this process."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield DeviceMesh("cpu", [0])
    dist.destroy_process_group()


def gradients(mesh: DeviceMesh, scale: float = 1.0) -> list[DTensor]:
    """Normal random numbers in tensors of several shapes."""
    generator = torch.Generator().manual_seed(1)
    return [distribute_tensor(torch.randn(s, generator=generator) * scale, mesh, [Shard(0)]) for s in SHAPES]


def by_torch(tensors: list[DTensor]) -> float:
    """The L2 norm over all elements, in double precision."""
    return float(torch.cat([tensor.to_local().double().flatten() for tensor in tensors]).norm())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_norm_is_torchs(mesh: DeviceMesh, scale: float) -> None:
    """Both norms equal the exact one up to rounding."""
    tensors = gradients(mesh, scale)
    assert ordered_norm(tensors) == pytest.approx(by_torch(tensors), rel=1e-6)
    assert fast_norm(tensors) == pytest.approx(by_torch(tensors), rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_element_shows_in_the_norm(mesh: DeviceMesh, bad: float) -> None:
    """A single non-finite element makes the norm non-finite, in any tensor."""
    for index in range(len(SHAPES)):
        tensors = gradients(mesh)
        tensors[index].to_local().view(-1)[-1] = bad
        assert not torch.tensor(ordered_norm(tensors)).isfinite()


def test_clipping_brings_a_long_gradient_to_the_limit(mesh: DeviceMesh) -> None:
    """A gradient above the limit is scaled to it, and keeps its direction."""
    tensors, before = gradients(mesh), gradients(mesh)
    clip(tensors, ordered_norm(tensors), 0.5)
    assert ordered_norm(tensors) == pytest.approx(0.5, rel=1e-6)
    ratios = torch.cat([(a.to_local() / b.to_local()).flatten() for a, b in zip(tensors, before, strict=True)])
    assert float(ratios.max() - ratios.min()) < 1e-6


def test_clipping_leaves_a_short_gradient_as_it_is(mesh: DeviceMesh) -> None:
    """A gradient within the limit keeps its bits."""
    tensors, before = gradients(mesh), gradients(mesh)
    clip(tensors, ordered_norm(tensors), 1e9)
    assert all(torch.equal(a.to_local(), b.to_local()) for a, b in zip(tensors, before, strict=True))
