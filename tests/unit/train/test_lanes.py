"""The lanes of a batch are split over the ranks."""

from hypothesis import given
from hypothesis import strategies as st

from headway.train.compute.step import lanes_of

COUNTS = st.integers(1, 64).flatmap(lambda lanes: st.tuples(st.integers(1, lanes), st.just(lanes)))
"""Ranks and lanes, with at least one lane per rank."""


@given(COUNTS)
def test_each_lane_is_counted_on_exactly_one_rank(counts: tuple[int, int]) -> None:
    """Over all ranks, each real lane occurs once."""
    ranks, lanes = counts
    assigned = [lane for rank in range(ranks) for lane in lanes_of(rank, ranks, lanes)]
    assert sorted(lane for lane in assigned if lane < lanes) == list(range(lanes))


@given(COUNTS)
def test_all_ranks_have_equally_many_rounds_in_order(counts: tuple[int, int]) -> None:
    """Otherwise a collective would wait for a rank that has finished; each round takes the next lanes."""
    ranks, lanes = counts
    rounds = list(zip(*(lanes_of(rank, ranks, lanes) for rank in range(ranks)), strict=True))
    assert [lane for turn in rounds for lane in turn] == list(range(len(rounds) * ranks))
    assert (len(rounds) - 1) * ranks < lanes
