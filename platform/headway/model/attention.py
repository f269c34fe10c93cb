"""Causal attention inside packed documents, by kernels that need no mask.

A mask over a row of S tokens takes S*S bytes. On CUDA it also rules out the flash kernel, computes the masked half and
copies shared heads. So documents are laid end to end, and kernels get the start of each. The choice of kernel depends
on the device, the dtype and the micro-batch's documents, never on the world size:

- every row is one document: plain causal `scaled_dot_product_attention`;
- CUDA, half precision: `varlen_attn`, torch's FlashAttention for sequences of various lengths;
- CUDA, other precisions: the memory-efficient kernel, which takes lengths too, but needs repeated heads;
- CPU: the flash kernel, one document at a time; short neighbors share a call, with a mask of at most SPAN*SPAN.
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
"""On a CPU, neighboring documents of together at most this length [tokens] share one call, to save overhead."""
CAUSAL: dict[str, Any] = {"window_size": (-1, 0)}
"""Options that make `varlen_attn` causal."""
if "enable_gqa" in inspect.signature(varlen_attn).parameters:  # torch 2.11 shares heads without this option
    CAUSAL["enable_gqa"] = True


@dataclass(frozen=True)
class Documents:
    """Starts of the documents in a micro-batch, whose rows are laid end to end. The end of a row ends a document."""

    starts: Tensor | None
    """First token of each document, then the number of tokens: [D + 1] int32; None if each row is one document."""
    longest: int
    """Upper bound for the longest document [tokens]: a power of two from `SPAN` on, or the length of a row. Code is
    compiled for each value, so there are few."""

    @classmethod
    def from_numbers(cls, numbers: NDArray[np.int32]) -> Self:
        """Documents from the document number of each token [B, S], on the CPU."""
        rows, length = numbers.shape
        new = np.ones((rows, length), dtype=bool)
        np.not_equal(numbers[:, 1:], numbers[:, :-1], out=new[:, 1:])
        starts = np.append(np.flatnonzero(new), rows * length)
        if len(starts) == rows + 1:
            return cls(None, length)
        longest = int(np.diff(starts).max())
        return cls(torch.from_numpy(starts.astype(np.int32)), min(length, max(SPAN, 1 << (longest - 1).bit_length())))

    def to(self, device: torch.device) -> Self:
        """The same documents on `device`; the host does not wait for the copy."""
        starts = self.starts
        if starts is not None and device.type == "cuda":
            starts = starts.pin_memory().to(device, non_blocking=True)
        return type(self)(starts, self.longest)


def attend(query: Tensor, key: Tensor, value: Tensor, starts: Tensor | None, longest: int) -> Tensor:
    """Causal attention inside documents: `query` [B, S, H, Q] to [B, S, H, Q].

    `key` and `value` are [B, S, K, Q], where K divides H; `starts` and `longest` are those of `Documents`.
    """
    if query.device.type != "cpu" and query.dtype not in HALF:  # these kernels cannot share heads
        key, value = (heads.repeat_interleave(query.shape[2] // key.shape[2], dim=2) for heads in (key, value))
    if starts is None:
        shared = query.shape[2] != key.shape[2]
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shared).transpose(1, 2)
    shape = query.shape
    query, key, value = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    output: Tensor
    if query.device.type == "cpu":
        output = torch.ops.headway.attend_documents(query, key, value, starts)[0]
    elif query.dtype in HALF:
        output = varlen_attn(query, key, value, starts, starts, longest, longest, **CAUSAL)  # type: ignore[assignment]
    else:
        output = _efficient(query, key, value, starts, longest)
    return output.view(shape)


def _efficient(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int) -> Tensor:
    """Attention by CUDA's memory-efficient kernel; all tensors are [T, H, Q]."""
    lengths = {"cu_seqlens_q": starts, "cu_seqlens_k": starts, "max_seqlen_q": longest, "max_seqlen_k": longest}
    causal = {"bias": None, "dropout_p": 0.0, "custom_mask_type": 1, "compute_log_sumexp": True}
    attention = torch.ops.aten._efficient_attention_forward  # noqa: SLF001 (the public function takes no lengths)
    output: Tensor = attention(query[None], key[None], value[None], **lengths, **causal)[0]
    return output[0]


@dataclass(frozen=True)
class AttentionSpan:
    """Adjacent documents that share one call on a CPU."""

    start: int
    stop: int
    mask: Tensor | None
    """The mask [L, L] bool of the keys that each query sees; None if the span is one document."""


def spans(starts: Sequence[int]) -> Iterator[AttentionSpan]:
    """Group documents into spans: a long one alone, short neighbors together."""
    first = 0
    for index in range(1, len(starts)):
        last = index == len(starts) - 1
        if last or starts[index + 1] - starts[first] > SPAN:
            yield AttentionSpan(starts[first], starts[index], _mask(starts[first : index + 1]))
            first = index


def _mask(starts: Sequence[int]) -> Tensor | None:
    """The mask of a span; documents begin at `starts`, whose last element is the end of the last document."""
    if len(starts) == 2:
        return None
    lengths = torch.tensor([stop - start for start, stop in pairwise(starts)])
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    return (numbers[:, None] == numbers).tril_()


@torch.library.custom_op("headway::attend_documents", mutates_args=(), device_types="cpu")
def _attend_documents(query: Tensor, key: Tensor, value: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Attention on a CPU [T, H, Q], and the logarithm of each query's normalizer [H, T]."""
    output = torch.empty_like(query)
    norms = query.new_empty(query.shape[1], query.shape[0], dtype=_span_dtype(query))
    for span in spans(starts.tolist()):
        rows = slice(span.start, span.stop)
        heads = (_heads_first(tensor[rows]) for tensor in (query, key, value))
        attended, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001 (SDPA on a CPU)
            *heads, 0.0, span.mask is None, attn_mask=_bias(span, query)
        )
        output[rows] = attended[0].transpose(0, 1)
        norms[:, rows] = norm[0]
    return output, norms


@_attend_documents.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG001 (only shapes)
    return torch.empty_like(query), query.new_empty(query.shape[1], query.shape[0], dtype=_span_dtype(query))


@torch.library.custom_op("headway::attend_documents_backward", mutates_args=(), device_types="cpu")
def _attend_documents_backward(  # noqa: PLR0917 (operators take positional arguments)
    output_gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, norms: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value, from the gradient of the output."""
    gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    for span in spans(starts.tolist()):
        rows = slice(span.start, span.stop)
        parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # noqa: SLF001 (SDPA on a CPU)
            *(_heads_first(tensor[rows]) for tensor in (output_gradient, query, key, value, output)),
            norms[None, :, rows],
            0.0,
            span.mask is None,
            attn_mask=_bias(span, query),
        )
        for gradient, part in zip(gradients, parts, strict=True):
            gradient[rows] = part[0].transpose(0, 1)
    return gradients


@_attend_documents_backward.register_fake
def _(output_gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG001 (only shapes)
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output, inputs[3])


def _backward(ctx: Any, output_gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.headway.attend_documents_backward(output_gradient, *ctx.saved_tensors), None)


_attend_documents.register_autograd(_backward, setup_context=_setup_context)


def _span_dtype(tensor: Tensor) -> torch.dtype:
    """Dtype of a span's computation: fp32 for half precision, so that gradients of shared heads are rounded once."""
    return torch.float32 if tensor.dtype in HALF else tensor.dtype


def _heads_first(tensor: Tensor) -> Tensor:
    """[L, H, Q] as [1, H, L, Q], in the dtype of spans."""
    return tensor.to(_span_dtype(tensor)).transpose(0, 1)[None]


def _bias(span: AttentionSpan, query: Tensor) -> Tensor | None:
    """The bias on the scores of `span`: 0 where a query sees a key, else minus infinity; None without a mask."""
    if span.mask is None:
        return None
    return torch.zeros(span.mask.shape, dtype=_span_dtype(query)).masked_fill_(~span.mask, -torch.inf)


OPERATIONS = (torch.ops.headway.attend_documents.default, torch.ops.torch_attn._varlen_attn.default)  # noqa: SLF001
"""The operators for packed documents, as a compiler or profiler sees them."""
