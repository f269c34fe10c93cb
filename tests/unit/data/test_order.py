"""The order of the data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.data.order import PERIOD, Mixture, Order, Permutation
from headway.errors import DataError
from headway.recipe import Recipe

BLOCK = 16
BATCH = 64


def recipe(blocks: Mapping[str, int], curriculum: list[dict[str, Any]] | None = None, seed: int = 0) -> Recipe:
    """A recipe with these sources."""
    return Recipe.model_validate(
        {
            "name": "order",
            "seed": seed,
            "data": {
                "sources": {name: {"path": "nowhere"} for name in blocks},
                "block_tokens": BLOCK,
                "curriculum": curriculum or [{}],
            },
            "model": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2, "ffn_width": 64},
            "train": {"tokens": 1 << 20, "batch_tokens": BATCH, "micro_batch_tokens": BLOCK},
        }
    )


@st.composite
def orders(draw: st.DrawFn) -> tuple[Order, dict[str, int]]:
    """An order over up to three sources and three stages, and each source's blocks."""
    names = draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True))
    blocks = {name: draw(st.integers(1, 40)) for name in names}
    starts = sorted({0, *draw(st.lists(st.integers(1, 60).map(lambda n: n * BATCH), max_size=2))})
    weights = st.dictionaries(st.sampled_from(names), st.floats(0.01, 100), min_size=1)
    curriculum = [{"from_tokens": start, "weights": draw(st.none() | weights)} for start in starts]
    return Order(recipe(blocks, curriculum, draw(st.integers(0, 2**40))), blocks), blocks


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_each_epoch_is_a_permutation(size: int, key: int, epoch: int) -> None:
    """In any epoch, each position has its own image inside the source."""
    images = Permutation(size, key).apply(np.full(size, epoch, dtype=np.int64), np.arange(size, dtype=np.int64))
    assert sorted(images.tolist()) == list(range(size))


@settings(deadline=None, max_examples=60)
@given(orders(), st.integers(1, 600))
def test_each_block_is_used_once_an_epoch_across_sources_and_stages(
    case: tuple[Order, dict[str, int]], count: int
) -> None:
    """The blocks of a source, split into epochs of its length, have each block at most once per epoch."""
    order, blocks = case
    sources, located = order.locate(np.arange(count, dtype=np.int64))
    for index, name in enumerate(order.sources):
        sequence, size = located[sources == index], blocks[name]
        for start in range(0, len(sequence), size):
            epoch = sequence[start : start + size].tolist()
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(range(size))


@settings(deadline=None, max_examples=60)
@given(orders(), st.lists(st.integers(0, 600), min_size=1))
def test_any_position_is_reached_without_the_ones_before(
    case: tuple[Order, dict[str, int]], positions: list[int]
) -> None:
    """Positions in any order, alone or together, get the blocks of the sequential pass."""
    order, _ = case
    sources, blocks = order.locate(np.arange(601, dtype=np.int64))
    indices = np.array(positions, dtype=np.int64)
    for part in (indices, indices[-1:]):
        part_sources, part_blocks = order.locate(part)
        np.testing.assert_array_equal(part_sources, sources[part])
        np.testing.assert_array_equal(part_blocks, blocks[part])


@settings(deadline=None, max_examples=20)
@given(st.integers(10**12, 2**55), st.integers(0, 2**32))
def test_positions_beyond_a_trillion_tokens_are_exact(position: int, seed: int) -> None:
    """Far out, blocks stay inside their source, none comes twice in an epoch, and shares are kept."""
    blocks = {"small": 1_000_003, "vast": 10**11}
    order = Order(recipe(blocks, [{"weights": {"small": 1.0, "vast": 3.0}}], seed), blocks)
    sources, located = order.locate(position // BLOCK + np.arange(4096, dtype=np.int64))
    for index, size in enumerate([1_000_003, 10**11]):
        mine = located[sources == index]
        assert mine.min() >= 0
        assert mine.max() < size
        assert len(np.unique(mine)) >= len(mine) - 1  # one epoch may end and another begin in between
    assert abs(np.mean(sources == 0) - 0.25) < 0.001


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=5), st.integers(0, 2**64 - 1), st.integers(1, PERIOD))
def test_every_prefix_keeps_the_weights(weights: list[float], key: int, count: int) -> None:
    """After any number of slots, each source has had its share to within one slot for each source, and one in all."""
    mixture = Mixture(weights, key)
    assert mixture.counts.sum() == PERIOD
    assert mixture.counts.min() >= 1
    np.testing.assert_allclose(mixture.counts, np.array(weights) / sum(weights) * PERIOD, atol=len(weights))
    np.testing.assert_allclose(mixture.counts_before(count), mixture.counts / PERIOD * count, atol=len(weights))
    counts = mixture.counts_before(3 * PERIOD + count)
    np.testing.assert_array_equal(counts, 3 * mixture.counts + mixture.counts_before(count))


def test_sources_are_mixed_by_their_size_unless_weights_are_given() -> None:
    """Without weights all sources end their epoch together."""
    blocks = {"large": 3000, "small": 1000}
    sources, _ = Order(recipe(blocks), blocks).locate(np.arange(4000, dtype=np.int64))
    assert abs(int(np.sum(sources == 0)) - 3000) <= 2


def test_a_stage_uses_only_sources_with_weight() -> None:
    """A source without weight in a stage is not used in it, and continues in the next where it stopped."""
    blocks = {"code": 500, "prose": 500}
    stages: list[dict[str, Any]] = [
        {"weights": {"prose": 1.0}},
        {"from_tokens": 100 * BLOCK, "weights": {"code": 1.0}, "sequence_tokens": 8},
        {"from_tokens": 200 * BLOCK, "weights": {"prose": 1.0}},
    ]
    order = Order(recipe(blocks, stages), blocks)
    sources, located = order.locate(np.arange(300, dtype=np.int64))
    assert sources.tolist() == [1] * 100 + [0] * 100 + [1] * 100
    alone, expected = Order(recipe(blocks, [{"weights": {"prose": 1.0}}]), blocks).locate(
        np.arange(200, dtype=np.int64)
    )
    assert alone.tolist() == [1] * 200
    np.testing.assert_array_equal(located[sources == 1], expected)
    assert [order.sequence_tokens(position * BLOCK) for position in (0, 99, 100, 199, 200)] == [16, 16, 8, 8, 16]


@pytest.mark.parametrize("size", [64, 4096, 5000])
def test_the_order_shows_no_structure(size: int) -> None:
    """Positions and blocks are uncorrelated, neighbours are separated, and epochs differ."""
    permutation, places = Permutation(size, key=7), np.arange(size, dtype=np.int64)
    passes = np.stack([permutation.apply(np.full(size, epoch, dtype=np.int64), places) for epoch in range(100)])
    # For random permutations a correlation has standard deviation 1 / sqrt(size - 1); the mean of 100 a tenth of it.
    limit = 4 / np.sqrt(size - 1)
    with_place = [np.corrcoef(blocks, places)[0, 1] for blocks in passes]
    with_next = [np.corrcoef(blocks[1:], blocks[:-1])[0, 1] for blocks in passes]
    with_epoch = [np.corrcoef(blocks, other)[0, 1] for blocks, other in zip(passes[1:], passes, strict=False)]
    for correlations in (with_place, with_next, with_epoch):
        assert np.abs(correlations).max() < 1.25 * limit
        assert abs(np.mean(correlations)) < limit / 10
    # One step on is one block on once in a pass, on average; so are fixed places.
    assert abs(np.sum(np.diff(passes, axis=1) == 1) / 100 - 1) < 0.5
    assert abs(np.sum(passes == places) / 100 - 1) < 0.5
    # Every quarter of the places meets every quarter of the blocks equally often: chi-square, 9 degrees of freedom.
    counts = np.histogram2d(np.tile(places, 100), passes.ravel(), bins=4)[0]
    assert np.sum((counts - counts.mean()) ** 2 / counts.mean()) < 9 + 5 * np.sqrt(18)


def test_small_sources_are_permuted_evenly() -> None:
    """With three blocks, all six orders are about equally frequent."""
    epochs, places = np.divmod(np.arange(18_000, dtype=np.int64), 3)
    orders_, counts = np.unique(Permutation(3, key=1).apply(epochs, places).reshape(-1, 3), axis=0, return_counts=True)
    assert len(orders_) == 6
    assert np.abs(counts - 1000).max() < 150


def test_seed_name_and_epoch_each_change_the_order() -> None:
    """Equal seeds give equal orders; another seed, name or epoch gives another order."""
    indices = np.arange(200, dtype=np.int64)

    def run(name: str, seed: int) -> list[int]:
        return list(Order(recipe({name: 100}, seed=seed), {name: 100}).locate(indices)[1])

    first = run("a", 0)
    assert first == run("a", 0)
    assert first != run("a", 1)
    assert first != run("b", 0)
    assert first[:100] != first[100:]


def test_the_order_of_a_source_does_not_depend_on_the_others() -> None:
    """Adding a source does not change the sequence of another one."""
    alone = Order(recipe({"b": 50}), {"b": 50}).locate(np.arange(50, dtype=np.int64))[1]
    blocks = {"a": 30, "b": 50}
    sources, located = Order(recipe(blocks), blocks).locate(np.arange(70, dtype=np.int64))
    mine = located[sources == 1]
    np.testing.assert_array_equal(mine, alone[: len(mine)])


def test_the_order_is_frozen() -> None:
    """The first release used these blocks; a change here changes every resumed run."""
    blocks = {"a": 1000, "b": 300}
    order = Order(recipe(blocks, [{}, {"from_tokens": 6 * BLOCK * 4, "weights": {"a": 1.0, "b": 2.0}}]), blocks)
    sources, located = order.locate(np.array([0, 1, 2, 3, 24, 25, 26, 10**9, 10**12], dtype=np.int64))
    assert sources.tolist() == [1, 0, 0, 0, 1, 0, 1, 0, 1]
    assert located.tolist() == [142, 86, 798, 132, 124, 320, 154, 601, 71]


def test_weight_for_a_source_without_a_block_is_refused() -> None:
    """The message names the source and the stage."""
    blocks = {"a": 5, "b": 0}
    with pytest.raises(DataError, match=r"curriculum\.0: gives weight to b"):
        Order(recipe(blocks, [{"weights": {"a": 1.0, "b": 1.0}}]), blocks)
    with pytest.raises(ValueError, match="before the start"):
        Order(recipe(blocks), blocks).locate(np.array([-1], dtype=np.int64))
