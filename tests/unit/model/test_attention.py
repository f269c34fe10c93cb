"""Attention inside packed documents: each way that it goes on a CPU, beside double precision."""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from bench.card.numbers import LIMITS, both, in_its_precision, largest, masked
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from headway.model import Documents
from headway.model.attention import SPAN, attend, spans

ROWS, TOKENS, HEADS, WIDTH = 3, 2 * SPAN + 44, 4, 16
CPU = torch.device("cpu")
SHARES = {"one document": 0.0, "a few": 0.01, "many": 0.1, "single tokens": 1.0}
"""How likely a token begins a document."""


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
    """Heads shared or not: to 1e-5 in fp32, to 2e-2 in bf16 and there at most 1.5 times torch's own error."""
    numbers = numbered(share)
    documents = Documents.find(numbers)
    inputs = [heads(HEADS, dtype, 1), heads(kv_heads, dtype, 2), heads(kv_heads, dtype, 3)]
    slope = heads(HEADS, dtype, 4)
    reference = masked(numbers, CPU)
    exact = both(reference, slope.double(), *(tensor.double() for tensor in inputs))
    ours = both(partial(attend, starts=documents.starts, longest=documents.longest), slope, *inputs)
    assert largest(ours, exact) <= LIMITS[dtype]
    if dtype == torch.bfloat16:
        with in_its_precision():
            theirs = both(reference, slope, *inputs)
        assert largest(ours, exact) <= max(1.5 * largest(theirs, exact), 1e-6)


class Squares(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations that are given a mask, and makings of square tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and looks at what it was given and made."""
        self.found += (kwargs or {}).get("attn_mask") is not None
        made = func(*args, **(kwargs or {}))
        for item in made if isinstance(made, tuple | list) else [made]:
            self.found += isinstance(item, Tensor) and item.shape[-2:] == (TOKENS, TOKENS)
        return made


def test_rows_of_one_document_are_never_masked() -> None:
    """Neither forward nor backward makes a square of a row's tokens, or takes a mask; torch's math kernel does."""
    documents = Documents.find(numbered(0.0))
    query, key = heads(HEADS, torch.float32, 1), heads(2, torch.float32, 2)
    with Squares() as ours:
        both(partial(attend, starts=documents.starts, longest=documents.longest), query, query, key, key)
    with Squares() as theirs:
        both(masked(numbered(0.0), CPU), query, query, key, key)
    assert ours.found == 0
    assert theirs.found > 0


@given(st.lists(st.lists(st.integers(1, 3 * SPAN), min_size=1, max_size=40), min_size=1, max_size=3))
def test_spans_are_all_documents_once_and_only_short_ones_share(rows: list[list[int]]) -> None:
    """Spans follow each other, begin where documents do, and hold several documents only if those fit together."""
    starts = [0, *np.cumsum([length for row in rows for length in row]).tolist()]
    found = list(spans(starts))
    assert [found[0].start, *(span.stop for span in found)] == sorted({0, *(span.stop for span in found)})
    assert found[-1].stop == starts[-1]
    assert {span.start for span in found} <= {*starts}
    for span in found:
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
    """Starts are the rows' and those of new numbers inside; rows of one document each need none."""
    numbers = (np.random.default_rng(seed).random((rows, tokens)) < share).cumsum(1).astype(np.int32)
    documents = Documents.find(numbers)
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
