"""Cross-entropy of a linear head, computed in chunks of tokens, so that the logits never exist whole.

Logits of T tokens over a vocabulary of V take 4*T*V bytes: 31 GiB at T = 65,536 and V = 128,256, more than most models.
Here only `chunk_tokens * V` of them exist at once.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_tokens: int, compiled: bool = False) -> Tensor:  # noqa: FBT001 (a switch that is passed on)
    """Sum over tokens of -log softmax(hidden weight^T)[target] [nats], an fp32 scalar.

    `hidden` [T, W] and `weight` [V, W] share a dtype; `targets` [T] are int64 in [0, V). The product is computed in
    that dtype, the softmax and all sums over it in fp32. The order of sums depends on T and `chunk_tokens` alone.
    `compiled` fuses the softmax with torch.compile.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    total: Tensor = _CrossEntropy.apply(hidden, weight, targets, chunk_tokens, compiled)  # type: ignore[no-untyped-call]
    return total


def softmax_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss of a chunk, fp32, and its gradient with respect to `logits` [C, V], in their dtype.

    The gradient is the softmax, minus 1 at the target. May overwrite `logits`.
    """
    scores, truth = logits.to(_sum_dtype(logits)), targets[:, None]
    norm = scores.logsumexp(1, keepdim=True)
    loss = (norm - scores.gather(1, truth)).sum()
    softmax = scores.sub_(norm).exp_()
    error = softmax.gather(1, truth) - 1.0
    return loss, softmax.to(logits.dtype).scatter_(1, truth, error.to(logits.dtype))


@cache
def compiled_softmax_loss() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """`softmax_loss`, compiled: fewer passes over the logits."""
    return torch.compile(softmax_loss, dynamic=False)


class _CrossEntropy(torch.autograd.Function):
    """Computes the gradients of each chunk in the forward pass, so that the backward pass need not recompute logits.

    The loss is a scalar, so the forward pass knows its gradients up to one factor (Hsu et al. 2024, Liger Kernel,
    section 3.2). This takes three matrix products instead of four. Memory: one fp32 gradient of `weight` and one
    gradient of `hidden`, which the backward pass needs anyway.
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
        needs_gradient = any(ctx.needs_input_grad)
        total = torch.zeros((), dtype=_sum_dtype(hidden), device=hidden.device)
        hidden_gradient = torch.empty_like(hidden if needs_gradient else hidden[:0])
        weight_gradient = torch.zeros_like(weight if needs_gradient else weight[:0], dtype=_sum_dtype(weight))
        compute = compiled_softmax_loss() if compiled else softmax_loss
        for start in range(0, len(targets), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            loss, gradient = compute(hidden[rows] @ weight.T, targets[rows])
            total += loss
            if needs_gradient:
                torch.mm(gradient, weight, out=hidden_gradient[rows])
                _add_product(weight_gradient, gradient.T, hidden[rows])
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Scale in fp32, then round; rounding the scale first would bias the whole gradient."""
        hidden_gradient, weight_gradient = ctx.saved_tensors
        hidden = (hidden_gradient.to(scale.dtype) * scale).to(hidden_gradient.dtype)
        return hidden, weight_gradient.mul_(scale).to(ctx.weight_dtype), None, None, None  # in place, hence once only


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    """Dtype of sums: fp32, or fp64 for fp64."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left` @ `right` to `total`, in the dtype of sums. On CUDA a half-precision product is not rounded first."""
    if left.dtype == total.dtype:
        torch.addmm(total, left, right, out=total)
    elif left.is_cuda:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total += left @ right
