"""L2 norm of the gradient, and clipping."""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def ordered_norm(gradients: Sequence[DTensor]) -> float:
    """L2 norm, with the same bits for every world size.

    Squares are summed per row by elementwise additions in a fixed tree, so the result does not depend on a kernel's
    choices. An all-reduce collects the row sums of all ranks (adding zeros is exact), and every rank sums them in the
    same order.
    """
    rows = torch.zeros(sum(_rows(g) for g in gradients), dtype=torch.float64, device=gradients[0].to_local().device)
    start = 0
    for gradient in gradients:
        local = gradient.to_local()
        if local.numel():
            _, offset = compute_local_shape_and_global_offset(gradient.shape, gradient.device_mesh, gradient.placements)
            first = start + offset[0]
            rows[first : first + local.shape[0]] = _row_sums(local.square().reshape(local.shape[0], -1)).double()
        start += _rows(gradient)
    dist.all_reduce(rows)
    return float(rows.sum().sqrt())


def fast_norm(gradients: Sequence[DTensor]) -> float:
    """L2 norm, computed by torch."""
    total = torch.nn.utils.get_total_norm(list[torch.Tensor](gradients), foreach=True)
    return float(total.full_tensor() if isinstance(total, DTensor) else total)


def clip(gradients: Iterable[DTensor], norm: float, limit: float) -> None:
    """Scale the gradient down to the norm `limit` if its `norm` is larger."""
    if norm > limit:
        torch._foreach_mul_([gradient.to_local() for gradient in gradients], limit / norm)


def _rows(tensor: torch.Tensor) -> int:
    return tensor.shape[0] if tensor.ndim else 1


def _row_sums(squares: torch.Tensor) -> torch.Tensor:
    """Sums over the columns, [rows, columns] to [rows], by halving: elementwise additions in a fixed tree."""
    while (columns := squares.shape[1]) > 1:
        half = columns // 2
        folded = squares[:, :half] + squares[:, half : 2 * half]
        if columns % 2:
            folded[:, 0] += squares[:, -1]
        squares = folded
    return squares[:, 0]
