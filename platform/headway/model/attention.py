"""Causal attention inside documents that are packed one after the other, by kernels that need no mask.

A mask over a row of S tokens takes S*S bytes, and on CUDA it takes attention off the flash kernel, computes the half
that is masked and copies heads that are shared. So documents are laid end to end, and kernels are told where each
one starts. Which kernel runs depends on the device, the dtype and the micro-batch's documents, never on the world size:

- every row is one document: plain causal `scaled_dot_product_attention`;
- CUDA, half precision: `varlen_attn`, torch's FlashAttention for sequences of various lengths;
- CUDA, other precisions: the memory-efficient kernel, which takes lengths too, but no shared heads;
- CPU: the flash kernel, one document at a time; short neighbours share one call and a mask of at most SPAN*SPAN.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

HALF = (torch.bfloat16, torch.float16)
SPAN = 128
"""Documents that fit together into so many tokens [tokens] are computed in one call on a CPU: calls cost time, too."""
CAUSAL: dict[str, Any] = {"window_size": (-1, 0)}
"""How `varlen_attn` is told that a token sees only what comes before it."""
if "enable_gqa" in inspect.signature(varlen_attn).parameters:  # torch 2.11 shares heads without being told
    CAUSAL["enable_gqa"] = True


@dataclass(frozen=True)
class Documents:
    """Where the documents of a micro-batch start, its rows laid end to end; the end of a row ends a document."""

    starts: Tensor | None
    """First token of each document, and the number of tokens: [D + 1] int32, or None where each row is one document."""
    longest: int
    """At least the length of the longest document [tokens]: a power of two from `SPAN` on, or the length of a row. Code
    is compiled for each value that it takes, so it takes few."""

    @classmethod
    def find(cls, numbers: NDArray[np.int32]) -> Self:
        """The documents of rows of tokens [B, S] that carry each token's document number, on the CPU."""
        rows, length = numbers.shape
        new = np.ones((rows, length), dtype=bool)
        np.not_equal(numbers[:, 1:], numbers[:, :-1], out=new[:, 1:])
        starts = np.append(np.flatnonzero(new), rows * length)
        if len(starts) == rows + 1:
            return cls(None, length)
        longest = int(np.diff(starts).max())
        return cls(torch.from_numpy(starts.astype(np.int32)), min(length, max(SPAN, 1 << (longest - 1).bit_length())))

    def to(self, device: torch.device) -> Self:
        """The same documents, for tensors on `device`; from pinned memory without waiting for the copy."""
        starts = self.starts
        if starts is not None and device.type == "cuda":
            starts = starts.pin_memory().to(device, non_blocking=True)
        return type(self)(starts, self.longest)


def attend(query: Tensor, key: Tensor, value: Tensor, starts: Tensor | None, longest: int) -> Tensor:
    """What each token mixes from the values that it may see: `query` [B, S, H, Q] to [B, S, H, Q].

    `key` and `value` are [B, S, K, Q], where K divides H; `starts` and `longest` are those of `Documents`.
    """
    if query.device.type != "cpu" and query.dtype not in HALF:  # no kernel for it shares heads
        key, value = (heads.repeat_interleave(query.shape[2] // key.shape[2], dim=2) for heads in (key, value))
    if starts is None:
        shared = query.shape[2] != key.shape[2]
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shared).transpose(1, 2)
    shape = query.shape
    query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    seen: Tensor
    if query.device.type == "cpu":
        seen = torch.ops.headway.attend_documents(query, key, value, starts)[0]
    elif query.dtype in HALF:
        seen = varlen_attn(query, key, value, starts, starts, longest, longest, **CAUSAL)  # type: ignore[assignment]
    else:
        seen = _efficient(query, key, value, starts, longest)
    return seen.view(shape)


def _efficient(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int) -> Tensor:
    """Attention by CUDA's memory-efficient kernel, all [T, H, Q]."""
    lengths = {"cu_seqlens_q": starts, "cu_seqlens_k": starts, "max_seqlen_q": longest, "max_seqlen_k": longest}
    causal = {"bias": None, "dropout_p": 0.0, "custom_mask_type": 1, "compute_log_sumexp": True}
    attention = torch.ops.aten._efficient_attention_forward  # noqa: SLF001 (no public name takes lengths)
    output: Tensor = attention(query[None], key[None], value[None], **lengths, **causal)[0]
    return output[0]


@dataclass(frozen=True)
class AttentionSpan:
    """Documents that are computed in one call on a CPU."""

    start: int
    stop: int
    mask: Tensor | None
    """What each query sees [L, L] bool; None where the span is one document."""


def spans(starts: Sequence[int]) -> Iterator[AttentionSpan]:
    """Cut documents into spans: a long one by itself, short neighbours together."""
    first = 0
    for index in range(1, len(starts)):
        last = index == len(starts) - 1
        if last or starts[index + 1] - starts[first] > SPAN:
            yield AttentionSpan(starts[first], starts[index], _mask(starts[first : index + 1]))
            first = index


def _mask(starts: Sequence[int]) -> Tensor | None:
    """A mask of the keys that each query may see; documents begin at `starts`, whose last number ends the last one."""
    if len(starts) == 2:
        return None
    lengths = torch.tensor([stop - start for start, stop in pairwise(starts)])
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    return (numbers[:, None] == numbers).tril_()


@torch.library.custom_op("headway::attend_documents", mutates_args=(), device_types="cpu")
def _attend_documents(query: Tensor, key: Tensor, value: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Attention on a CPU [T, H, Q], and the logarithm of each query's normaliser [H, T]."""
    output = torch.empty_like(query)
    norms = query.new_empty(query.shape[1], query.shape[0], dtype=_span_dtype(query))
    for span in spans(starts.tolist()):
        rows = slice(span.start, span.stop)
        heads = (_heads_first(tensor[rows]) for tensor in (query, key, value))
        seen, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001 (SDPA on a CPU)
            *heads, 0.0, span.mask is None, attn_mask=_bias(span, query)
        )
        output[rows] = seen[0].transpose(0, 1)
        norms[:, rows] = norm[0]
    return output, norms


@_attend_documents.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001 (only shapes)
    return torch.empty_like(query), query.new_empty(query.shape[1], query.shape[0], dtype=_span_dtype(query))


@torch.library.custom_op("headway::attend_documents_backward", mutates_args=(), device_types="cpu")
def _attend_documents_backward(  # noqa: PLR0917 (an operation's arguments come by their place)
    slope: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, norms: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, from the gradient `slope` of the output."""
    gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    for span in spans(starts.tolist()):
        rows = slice(span.start, span.stop)
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # noqa: SLF001 (SDPA on a CPU)
            *(_heads_first(tensor[rows]) for tensor in (slope, query, key, value, output)),
            norms[None, :, rows],
            0.0,
            span.mask is None,
            attn_mask=_bias(span, query),
        )
        for gradient, part in zip(gradients, found, strict=True):
            gradient[rows] = part[0].transpose(0, 1)
    return gradients


@_attend_documents_backward.register_fake
def _(slope: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG001 (only shapes)
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _remember(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output, inputs[3])


def _differentiate(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.headway.attend_documents_backward(slope, *ctx.saved_tensors), None)


_attend_documents.register_autograd(_differentiate, setup_context=_remember)


def _span_dtype(tensor: Tensor) -> torch.dtype:
    """What a span is computed in: fp32 for half precision, so that shared heads' gradients are rounded once."""
    return torch.float32 if tensor.dtype in HALF else tensor.dtype


def _heads_first(tensor: Tensor) -> Tensor:
    """[L, H, Q] as [1, H, L, Q], wide."""
    return tensor.to(_span_dtype(tensor)).transpose(0, 1)[None]


def _bias(span: AttentionSpan, query: Tensor) -> Tensor | None:
    """What is added to the scores of `span`: 0 where a query sees a key, else minus infinity."""
    if span.mask is None:
        return None
    return torch.zeros(span.mask.shape, dtype=_span_dtype(query)).masked_fill_(~span.mask, -torch.inf)


OPERATIONS = (torch.ops.headway.attend_documents.default, torch.ops.torch_attn._varlen_attn.default)  # noqa: SLF001
"""The kernels for documents, by the names that a compiler or a profile has for them."""
