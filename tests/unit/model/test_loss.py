"""The loss in chunks, in half precision and in double."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from headway.model.loss import cross_entropy

WIDTH, VOCABULARY, CHUNK = 64, 500, 100


def gradients(tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss over `tokens` by hidden states and weight, from values that bf16 holds exactly."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(tokens, WIDTH, generator=generator).bfloat16().to(dtype).requires_grad_()
    weight = (torch.randn(VOCABULARY, WIDTH, generator=generator) / 8).bfloat16().to(dtype).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (tokens,), generator=generator)
    first, second = torch.autograd.grad(cross_entropy(hidden, weight, targets, CHUNK) / tokens, (hidden, weight))
    return first, second


@pytest.mark.parametrize("tokens", [384, 512, 768])
def test_gradient_in_bf16_is_not_biased_by_the_size_of_the_batch(tokens: int) -> None:
    """On average each gradient equals double precision to 7e-4, even if 1/tokens rounds in bf16 (1/384: 0.2 %)."""
    for ours, exact in zip(gradients(tokens, torch.bfloat16), gradients(tokens, torch.float64), strict=True):
        assert exact.dtype == torch.float64
        along = (ours.double() * exact).sum() / exact.square().sum()
        assert along.item() == pytest.approx(1.0, abs=7e-4)


def test_double_precision_is_kept() -> None:
    """Double-precision inputs are computed in double precision, gradients included."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (7,), generator=generator)
    plain = functional.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    ours = cross_entropy(hidden, weight, targets, 3)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=0)
    for loss in (ours, plain):
        hidden.grad = weight.grad = None
        (loss * 0.3).backward()  # type: ignore[no-untyped-call]
        grads = [hidden.grad, weight.grad]
        if loss is ours:
            mine = grads
    torch.testing.assert_close(mine, grads, rtol=1e-11, atol=1e-13)
