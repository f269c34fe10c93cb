"""Attention inside packed documents equals double precision, by each kernel of a CPU."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from bench.card.numbers import LIMITS, MaskCounter, bf16_math, largest_error, masked_attention, output_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from headway.model import Documents
from headway.model.attention import SPAN, attend, spans

ROWS, TOKENS, HEADS, WIDTH = 3, 2 * SPAN + 44, 4, 16
CPU = torch.device("cpu")
SHARES = {"one document": 0.0, "a few": 0.01, "many": 0.1, "single tokens": 1.0}
"""Probability that a token begins a document."""


def numbered(share: float) -> NDArray[np.int32]:
    """The document of each token [ROWS, TOKENS]."""
    return (np.random.default_rng(1).random((ROWS, TOKENS)) < share).cumsum(1).astype(np.int32)


def heads(count: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Random heads [ROWS, TOKENS, count, WIDTH]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, TOKENS, count, WIDTH, generator=generator).to(dtype)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("share", SHARES.values(), ids=SHARES.keys())
@pytest.mark.parametrize("dtype", LIMITS)
def test_attention_equals_double_precision_in_output_and_gradients(
    dtype: torch.dtype, share: float, kv_heads: int
) -> None:
    """To 1e-5 in fp32, to 2e-2 in bf16 and there at most 1.5 times torch's own error, with shared heads or not."""
    numbers = numbered(share)
    documents = Documents.from_numbers(numbers)
    inputs = [heads(HEADS, dtype, 1), heads(kv_heads, dtype, 2), heads(kv_heads, dtype, 3)]
    slope = heads(HEADS, dtype, 4)
    reference = masked_attention(numbers, CPU)
    exact = output_and_gradients(reference, slope.double(), *(tensor.double() for tensor in inputs))
    ours = output_and_gradients(partial(attend, starts=documents.starts, longest=documents.longest), slope, *inputs)
    assert largest_error(ours, exact) <= LIMITS[dtype]
    if dtype == torch.bfloat16:
        with bf16_math():
            theirs = output_and_gradients(reference, slope, *inputs)
        assert largest_error(ours, exact) <= max(1.5 * largest_error(theirs, exact), 1e-6)


def test_rows_of_one_document_are_never_masked() -> None:
    """Forward and backward use no mask and make no square tensor, unlike torch's math kernel."""
    documents = Documents.from_numbers(numbered(0.0))
    query, key = heads(HEADS, torch.float32, 1), heads(2, torch.float32, 2)
    with MaskCounter(TOKENS, arguments=True) as ours:
        output_and_gradients(
            partial(attend, starts=documents.starts, longest=documents.longest), query, query, key, key
        )
    with MaskCounter(TOKENS, arguments=True) as theirs:
        output_and_gradients(masked_attention(numbered(0.0), CPU), query, query, key, key)
    assert ours.count == 0
    assert theirs.count > 0


@settings(deadline=None)  # a test asserts no time, and a loaded machine is slow
@given(st.lists(st.lists(st.integers(1, 3 * SPAN), min_size=1, max_size=40), min_size=1, max_size=3))
def test_spans_are_all_documents_once_and_only_short_ones_share(rows: list[list[int]]) -> None:
    """Spans are consecutive, begin at documents, and hold several documents only if they fit."""
    starts = [0, *np.cumsum([length for row in rows for length in row]).tolist()]
    groups = list(spans(starts))
    assert [groups[0].start, *(span.stop for span in groups)] == sorted({0, *(span.stop for span in groups)})
    assert groups[-1].stop == starts[-1]
    assert {span.start for span in groups} <= {*starts}
    for span in groups:
        inside = [each for each in starts if span.start <= each <= span.stop]
        if len(inside) == 2:
            assert span.mask is None
            continue
        assert span.stop - span.start <= SPAN
        assert span.mask is not None
        numbers = torch.cat([torch.full((stop - start,), start) for start, stop in pairwise(inside)])
        assert torch.equal(span.mask, (numbers[:, None] == numbers).tril())


@given(st.integers(1, 4), st.integers(1, 40), st.floats(0, 1), st.integers(0, 9))
def test_documents_end_with_their_rows(rows: int, tokens: int, share: float, seed: int) -> None:
    """A document starts at each row and at each new number; rows of one document need no starts."""
    numbers = (np.random.default_rng(seed).random((rows, tokens)) < share).cumsum(1).astype(np.int32)
    documents = Documents.from_numbers(numbers)
    expected = [
        row * tokens + at
        for row in range(rows)
        for at in range(tokens)
        if not at or numbers[row, at] != numbers[row, at - 1]
    ]
    if len(expected) == rows:
        assert (documents.starts, documents.longest) == (None, tokens)
        return
    assert documents.starts is not None
    assert documents.starts.tolist() == [*expected, rows * tokens]
    longest = max(stop - start for start, stop in pairwise([*expected, rows * tokens]))
    assert longest <= documents.longest <= tokens
    assert documents.longest in {tokens, *(SPAN << power for power in range(10))}
    assert documents.longest < 2 * longest or documents.longest <= SPAN
