"""Numbers: each way that attention goes, and the loss, beside double precision; what is refused; what repeats its bits."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from bench.card.device import Device
from headway.errors import UsageError
from headway.model import Documents
from headway.model.attention import attend
from headway.model.loss import cross_entropy
from headway.train.trial import naming

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""The largest error, as a share of the largest value."""
NO_WORSE = 1.5
"""Nor more than so many times the error of torch's math kernel."""
REPEATS = 5
Row = dict[str, Any]


class Masks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts tensors that are as large as a mask of a whole batch of rows of `tokens`."""

    def __init__(self, rows: int, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.tokens, self.found = rows, tokens, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and look at what it made."""
        made = function(*args, **(kwargs or {}))
        for item in made if isinstance(made, tuple | list) else [made]:
            if isinstance(item, Tensor) and item.shape[-2:] == (self.tokens, self.tokens):
                self.found += item.numel() >= self.rows * self.tokens * self.tokens
        return made


def numbers(device: Device) -> Iterator[Row]:
    """All of them, the most telling first."""
    rows, tokens = (4, 1024) if device.cuda else (2, 96)
    for dtype in (torch.bfloat16, torch.float32):
        for kv_heads in (2, 8):
            for name, share in (("one document", 0.0), ("many", 0.02), ("single tokens", 1.0)):
                yield attention(device, name, share, dtype, kv_heads, rows=rows, tokens=tokens)
    yield from bias(device)
    yield refusal(device)
    yield from repetition(device, rows, tokens)


def made_up(device: Device, share: float, dtype: torch.dtype, kv_heads: int, rows: int, tokens: int) -> Any:
    """Query, key, value [B, S, H, Q], a gradient of the output, and documents that end with probability `share`."""
    random = np.random.default_rng(1)
    numbers = (random.random((rows, tokens)) < share).cumsum(1).astype(np.int32)
    generator = torch.Generator().manual_seed(1)
    query, key, value, slope = (
        torch.randn(rows, tokens, heads, 64, generator=generator).to(device.torch, dtype)
        for heads in (8, kv_heads, kv_heads, 8)
    )
    return query, key, value, slope, numbers


def attention(
    device: Device, name: str, share: float, dtype: torch.dtype, kv_heads: int, *, rows: int, tokens: int
) -> Row:
    """The error of output and gradients, beside that of torch's math kernel with a mask."""
    query, key, value, slope, numbers = made_up(device, share, dtype, kv_heads, rows, tokens)
    documents = Documents.find(numbers).to(device.torch)
    place = torch.from_numpy(numbers).to(device.torch)
    mask = (
        (place[:, :, None] == place[:, None]) & torch.ones(tokens, tokens, dtype=torch.bool, device=device.torch).tril()
    )[:, None]

    def masked(*heads: Tensor) -> Tensor:
        first = (tensor.transpose(1, 2) for tensor in heads)
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(*first, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    exact = both(masked, slope.double(), *(tensor.double() for tensor in (query, key, value)))
    with Masks(rows, tokens) as masks:
        ours = both(lambda *heads: attend(*heads, documents.starts, documents.longest), slope, query, key, value)
    with in_its_precision():
        theirs = both(masked, slope, query, key, value)
    error, other = (largest(found, exact) for found in (ours, theirs))
    fine = error <= LIMITS[dtype] and (dtype != torch.bfloat16 or error <= max(NO_WORSE * other, 1e-6))
    unmasked = masks.found == 0 or not device.cuda
    return {
        "name": f"attention, {name}, {8 // kv_heads} queries a key, {str(dtype)[6:]}",
        "error": error, "math": other, "masks": masks.found, "good": fine and unmasked,
    }  # fmt: skip


@contextmanager
def in_its_precision() -> Iterator[None]:
    """Let torch's math kernel compute in bf16 what it is given in bf16; else it computes in fp32, and rounds once."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(enabled=True)
    try:
        yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(enabled=False)


def largest(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest error, as a share of the largest value of its tensor; of all tensors, where that is 0 but for rounding."""
    sizes = [tensor.abs().max().item() for tensor in exact]
    sizes = [size if size > 1e-6 * max(sizes) else max(sizes) for size in sizes]
    return max((f.double() - e).abs().max().item() / size for f, e, size in zip(found, exact, sizes, strict=True))


def both(function: Callable[..., Tensor], slope: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Output and gradients."""
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    output = function(*inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs, slope)]


def bias(device: Device) -> Iterator[Row]:
    """How far the mean gradient of the loss is from that in double precision, in bf16, for scales that are no power of 2."""
    generator = torch.Generator().manual_seed(2)
    for tokens in (384, 12_288 if device.cuda else 768):
        hidden = torch.randn(tokens, 256, generator=generator).to(device.torch, torch.bfloat16)
        weight = (torch.randn(1000, 256, generator=generator) / 8).to(device.torch, torch.bfloat16)
        targets = torch.randint(0, 1000, (tokens,), generator=generator).to(device.torch)

        def loss(hidden: Tensor, weight: Tensor, targets: Tensor = targets, tokens: int = tokens) -> Tensor:
            return cross_entropy(hidden, weight, targets, 256) / tokens

        one = torch.ones((), device=device.torch)
        found = both(loss, one, hidden, weight)[1:]
        exact = both(loss, one.double(), hidden.double(), weight.double())[1:]
        for name, ours, theirs in zip(("hidden", "weight"), found, exact, strict=True):
            off = ((ours.double() * theirs).sum() / theirs.square().sum() - 1).abs().item()
            yield {"name": f"loss, bias of the gradient of {name}, {tokens:,} tokens", "error": off, "good": off < 5e-4}


def refusal(device: Device) -> Row:
    """What is said of an operation without a deterministic kernel."""
    torch.use_deterministic_algorithms(True)
    try:
        with naming(device.torch):
            torch.zeros(4, device=device.torch).put_(
                torch.tensor([1], device=device.torch), torch.ones(1, device=device.torch)
            )
        said = "nothing"
    except UsageError as error:
        said = str(error)
    finally:
        torch.use_deterministic_algorithms(False)
    return {
        "name": "an operation without a deterministic kernel is refused by name",
        "said": said,
        "good": said.startswith("put_"),
    }


def repetition(device: Device, rows: int, tokens: int) -> Iterator[Row]:
    """How many different bits the gradients have when they are computed again and again."""
    for strict in (True, False):
        torch.use_deterministic_algorithms(strict)
        for name, share in (("one document", 0.0), ("many", 0.02)):
            query, key, value, slope, numbers = made_up(device, share, torch.bfloat16, 2, rows, tokens)
            documents = Documents.find(numbers).to(device.torch)
            digests = {
                digest(
                    both(lambda *heads: attend(*heads, documents.starts, documents.longest), slope, query, key, value)
                )  # noqa: B023 (called here)
                for _ in range(REPEATS)
            }
            what = "strict" if strict else "not strict"
            yield {
                "name": f"attention, {name}, {what}: different gradients of {REPEATS}",
                "different": len(digests),
                "good": len(digests) == 1 or not strict,
            }
    torch.use_deterministic_algorithms(False)


def digest(tensors: list[Tensor]) -> str:
    """SHA-256 of some tensors' bits."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
