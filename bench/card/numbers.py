"""Numerics: attention and loss against double precision, refused operations, and repeatability of bits."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode

from bench.card.device import Device
from headway.errors import UsageError
from headway.model import Documents
from headway.model.attention import attend
from headway.model.loss import cross_entropy
from headway.train.trial import naming_operation

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Largest allowed error, relative to the largest value."""
MATH_RATIO = 1.5
"""Largest allowed ratio to the error of torch's math kernel."""
REPEATS = 5
Row = dict[str, Any]


class MaskCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts tensors of shape [..., `tokens`, `tokens`] with at least `rows` such squares: masks and scores.

    With `arguments`, it also counts operations that take a mask.
    """

    def __init__(self, tokens: int, *, rows: int = 1, arguments: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tokens, self.rows, self.arguments, self.count = tokens, rows, arguments, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and inspect its result."""
        self.count += self.arguments and (kwargs or {}).get("attn_mask") is not None
        result = function(*args, **(kwargs or {}))
        for item in result if isinstance(result, tuple | list) else [result]:
            if isinstance(item, Tensor) and item.shape[-2:] == (self.tokens, self.tokens):
                self.count += item.numel() >= self.rows * self.tokens * self.tokens
        return result


def numbers(device: Device) -> Iterator[Row]:
    """All checks, the most significant first."""
    for dtype in (torch.bfloat16, torch.float32):
        for kv_heads in (2, 8):
            for name, share in (("one document", 0.0), ("many", 0.02), ("single tokens", 1.0)):
                yield attention(Text(device, share, dtype, kv_heads), name)
    yield from bias(device)
    yield refusal(device)
    yield from repetition(device)


class Text:
    """Query, key and value of random text, and documents that end after a token with probability `share`."""

    def __init__(self, device: Device, share: float, dtype: torch.dtype, kv_heads: int) -> None:
        self.device, self.dtype, self.kv_heads = device, dtype, kv_heads
        self.rows, self.tokens = (4, 1024) if device.cuda else (2, 96)
        self.numbers = (np.random.default_rng(1).random((self.rows, self.tokens)) < share).cumsum(1).astype(np.int32)
        self.documents = Documents.from_numbers(self.numbers).to(device.torch)
        generator = torch.Generator().manual_seed(1)
        self.query, self.key, self.value, self.slope = (
            torch.randn(self.rows, self.tokens, heads, 64, generator=generator).to(device.torch, dtype)
            for heads in (8, kv_heads, kv_heads, 8)
        )

    def attention(self) -> list[Tensor]:
        """Output and gradients of the model's attention."""
        return output_and_gradients(self.attend, self.slope, self.query, self.key, self.value)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention inside the documents."""
        return attend(query, key, value, self.documents.starts, self.documents.longest)


def attention(text: Text, name: str) -> Row:
    """Error of output and gradients, and the error of torch's math kernel with a mask."""
    inputs = (text.query, text.key, text.value)
    reference = masked_attention(text.numbers, text.device.torch)
    exact = output_and_gradients(reference, text.slope.double(), *(tensor.double() for tensor in inputs))
    with MaskCounter(text.tokens, rows=text.rows) as masks:
        ours = text.attention()
    with bf16_math():
        theirs = output_and_gradients(reference, text.slope, *inputs)
    error, other = (largest_error(results, exact) for results in (ours, theirs))
    fine = error <= LIMITS[text.dtype] and (text.dtype != torch.bfloat16 or error <= max(MATH_RATIO * other, 1e-6))
    return {
        "name": f"attention, {name}, {8 // text.kv_heads} queries per key, {str(text.dtype)[6:]}",
        "error": error, "math": other, "masks": masks.count, "good": fine and masks.count == 0,
    }  # fmt: skip


def masked_attention(numbers: NDArray[np.int32], device: torch.device) -> Callable[..., Tensor]:
    """Attention by torch's math kernel with the mask of documents `numbers` [B, S], for [B, S, H, Q]."""
    document, tokens = torch.from_numpy(numbers).to(device), numbers.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
    mask = ((document[:, :, None] == document[:, None]) & causal)[:, None]

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True).transpose(1, 2)

    return run


@contextmanager
def bf16_math() -> Iterator[None]:
    """Let torch's math kernel compute bf16 inputs in bf16. By default it computes in fp32 and rounds once."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(enabled=True)
    try:
        yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(enabled=False)


def largest_error(results: list[Tensor], exact: list[Tensor]) -> float:
    """Largest error, relative to the largest value of its tensor, or of all tensors if that is 0 up to rounding."""
    sizes = [tensor.abs().max().item() for tensor in exact]
    sizes = [size if size > 1e-6 * max(sizes) else max(sizes) for size in sizes]
    return max((f.double() - e).abs().max().item() / size for f, e, size in zip(results, exact, sizes, strict=True))


def output_and_gradients(function: Callable[..., Tensor], slope: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The output of `function` and the gradients of its inputs, for output gradient `slope`."""
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    output = function(*inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs, slope)]


def bias(device: Device) -> Iterator[Row]:
    """Bias of the mean gradient of the loss in bf16, for scales that are not a power of 2."""
    generator = torch.Generator().manual_seed(2)
    one = torch.ones((), device=device.torch)
    for tokens in (384, 12_288 if device.cuda else 768):
        hidden = torch.randn(tokens, 256, generator=generator).to(device.torch, torch.bfloat16)
        weight = (torch.randn(1000, 256, generator=generator) / 8).to(device.torch, torch.bfloat16)
        targets = torch.randint(0, 1000, (tokens,), generator=generator).to(device.torch)
        loss = partial(mean_loss, targets)
        gradients = output_and_gradients(loss, one, hidden, weight)[1:]
        exact = output_and_gradients(loss, one.double(), hidden.double(), weight.double())[1:]
        for name, ours, theirs in zip(("hidden", "weight"), gradients, exact, strict=True):
            error = ((ours.double() * theirs).sum() / theirs.square().sum() - 1).abs().item()
            yield {
                "name": f"loss, bias of the gradient of {name}, {tokens:,} tokens",
                "error": error,
                "good": error < 5e-4,
            }


def mean_loss(targets: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """Headway's loss per token."""
    return cross_entropy(hidden, weight, targets, 256) / len(targets)


@contextmanager
def strictness(*, strict: bool) -> Iterator[None]:
    """Set whether torch refuses operations without a deterministic kernel."""
    torch.use_deterministic_algorithms(mode=strict)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=False)


def refusal(device: Device) -> Row:
    """The error of an operation without a deterministic kernel."""
    index, value = torch.tensor([1], device=device.torch), torch.ones(1, device=device.torch)
    message = "nothing"
    try:
        with strictness(strict=True), naming_operation(device.torch):
            torch.zeros(4, device=device.torch).put_(index, value)
    except UsageError as error:
        message = str(error)
    name = "an operation without a deterministic kernel is refused by name"
    return {"name": name, "said": message, "good": message.startswith("put_")}


def repetition(device: Device) -> Iterator[Row]:
    """Number of different results of repeated gradient computations."""
    for strict in (True, False):
        for name, share in (("one document", 0.0), ("many", 0.02)):
            text = Text(device, share, torch.bfloat16, 2)
            with strictness(strict=strict):
                different = len({digest(text.attention()) for _ in range(REPEATS)})
            what = f"attention, {name}, {'strict' if strict else 'not strict'}: different gradients of {REPEATS}"
            yield {"name": what, "different": different, "good": different == 1 or not strict}


def digest(tensors: list[Tensor]) -> str:
    """SHA-256 of the bits of tensors."""
    state = hashlib.sha256()
    for tensor in tensors:
        state.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
