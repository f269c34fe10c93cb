"""Cross-entropy of a linear head, a chunk of tokens at a time, so that the logits never exist whole.

Logits of T tokens over V words take 4*T*V bytes: at T = 65,536 and V = 128,256 that is 31 GiB, more than most
models that would produce them. Here only `chunk_tokens * V` of them exist at once.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_tokens: int, compiled: bool = False) -> Tensor:  # noqa: FBT001 (a switch that is passed on)
    """Sum over tokens of -log softmax(hidden weight^T)[target] [nats], an fp32 scalar.

    `hidden` [T, W] and `weight` [V, W] share a dtype; `targets` [T] are int64 in [0, V). The product is taken in that
    dtype, the softmax and every sum over it in fp32. The order of sums depends on T and `chunk_tokens` alone.
    `compiled` fuses the softmax with torch.compile.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    total: Tensor = _CrossEntropy.apply(hidden, weight, targets, chunk_tokens, compiled)  # type: ignore[no-untyped-call]
    return total


def softmax_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The summed loss of a chunk, fp32, and its gradient by `logits` [C, V], in their dtype; it overwrites them.

    The gradient is the softmax, less 1 at the target.
    """
    scores, truth = logits.to(_wide(logits)), targets[:, None]
    norm = scores.logsumexp(1, keepdim=True)
    loss = (norm - scores.gather(1, truth)).sum()
    error = scores.sub_(norm).exp_()
    wrong = error.gather(1, truth) - 1.0
    return loss, error.to(logits.dtype).scatter_(1, truth, wrong.to(logits.dtype))


@cache
def compiled_softmax_loss() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The same, in fewer passes over the logits."""
    return torch.compile(softmax_loss, dynamic=False)


class _CrossEntropy(torch.autograd.Function):
    """Takes the gradients of each chunk while its logits are at hand, so that backward need not make them again.

    The loss is a scalar, so forward knows its gradients up to one factor (Hsu et al. 2024, Liger Kernel, section 3.2):
    three matrix products in all, where recomputing in backward takes four. It costs one fp32 gradient of `weight` and
    one gradient of `hidden`, which backward would hold a moment later anyway.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 (an autograd function's arguments come by their place)
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        chunk_tokens: int,
        compiled: bool,  # noqa: FBT001
    ) -> Tensor:
        learn = any(ctx.needs_input_grad)
        total = torch.zeros((), dtype=_wide(hidden), device=hidden.device)
        hidden_slope = torch.empty_like(hidden if learn else hidden[:0])
        weight_slope = torch.zeros_like(weight if learn else weight[:0], dtype=_wide(weight))
        compute = compiled_softmax_loss() if compiled else softmax_loss
        for start in range(0, len(targets), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            loss, slope = compute(hidden[rows] @ weight.T, targets[rows])
            total += loss
            if learn:
                torch.mm(slope, weight, out=hidden_slope[rows])
                _add_product(weight_slope, slope.T, hidden[rows])
        ctx.save_for_backward(hidden_slope, weight_slope)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Scale in fp32, then round: a scale that is rounded itself would bias the whole gradient."""
        hidden_slope, weight_slope = ctx.saved_tensors
        hidden = (hidden_slope.to(scale.dtype) * scale).to(hidden_slope.dtype)
        return hidden, weight_slope.mul_(scale).to(ctx.weight_dtype), None, None, None  # once only: it is in place


def _wide(tensor: Tensor) -> torch.dtype:
    """What is summed in: fp32, or double precision for what is in double precision."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left` @ `right` to `total`, which is wide; on CUDA no product in half precision is rounded on the way."""
    if left.dtype == total.dtype:
        torch.addmm(total, left, right, out=total)
    elif left.is_cuda:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total += left @ right
