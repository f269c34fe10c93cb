"""Cross-entropy of a linear head, a chunk of tokens at a time, so that the logits never exist whole.

Logits of T tokens over V words take 4*T*V bytes: at T = 65,536 and V = 128,256 that is 31 GiB, more than most
models that would produce them. Here only `chunk_tokens * V` of them exist at once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_tokens: int) -> Tensor:
    """Sum over tokens of -log softmax(hidden weight^T)[target] [nats], an fp32 scalar.

    `hidden` [T, W] and `weight` [V, W] share a dtype; `targets` [T] are int64 in [0, V). The product is taken in that
    dtype, the softmax and every sum over it in fp32. The order of sums depends on T and `chunk_tokens` alone.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    total: Tensor = _CrossEntropy.apply(hidden, weight, targets, chunk_tokens)  # type: ignore[no-untyped-call]
    return total


class _CrossEntropy(torch.autograd.Function):
    """Takes the gradients of each chunk while its logits are at hand, so that backward need not make them again.

    The loss is a scalar, so forward knows its gradients up to one factor (Hsu et al. 2024, Liger Kernel, section 3.2):
    three matrix products in all, where recomputing in backward takes four. It costs one fp32 gradient of `weight` and
    one gradient of `hidden`, which backward would hold a moment later anyway.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk_tokens: int) -> Tensor:
        learn = any(ctx.needs_input_grad)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_slope = torch.empty_like(hidden if learn else hidden[:0])
        weight_slope = torch.zeros_like(weight if learn else weight[:0], dtype=torch.float32)
        for start in range(0, len(targets), chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            logits = (hidden[rows] @ weight.T).float()
            norm = logits.logsumexp(1, keepdim=True)
            total += (norm - logits.gather(1, targets[rows, None])).sum()
            if learn:
                error = logits.sub_(norm).exp_()
                error[torch.arange(len(error), device=error.device), targets[rows]] -= 1.0
                slope = error.to(weight.dtype)
                torch.mm(slope, weight, out=hidden_slope[rows])
                weight_slope += slope.T @ hidden[rows]
        ctx.save_for_backward(hidden_slope, weight_slope)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden_slope, weight_slope = ctx.saved_tensors
        return hidden_slope * scale.to(hidden_slope.dtype), (weight_slope * scale).to(ctx.weight_dtype), None, None
