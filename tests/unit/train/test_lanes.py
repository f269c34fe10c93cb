"""The lanes of a batch are shared out among the ranks."""

from hypothesis import given
from hypothesis import strategies as st

from headway.train.step import lanes_of

COUNTS = st.integers(1, 64).flatmap(lambda lanes: st.tuples(st.integers(1, lanes), st.just(lanes)))
"""Ranks and lanes, with at least a lane for each rank."""


@given(COUNTS)
def test_each_lane_is_counted_on_exactly_one_rank(counts: tuple[int, int]) -> None:
    """Over all ranks, the lanes below the number of lanes are each there once."""
    ranks, lanes = counts
    found = [lane for rank in range(ranks) for lane in lanes_of(rank, ranks, lanes)]
    assert sorted(lane for lane in found if lane < lanes) == list(range(lanes))


@given(COUNTS)
def test_all_ranks_have_as_many_rounds_in_the_order_of_the_list(counts: tuple[int, int]) -> None:
    """No rank waits in a collective for one that has finished, and each round takes the next lanes in order."""
    ranks, lanes = counts
    rounds = list(zip(*(lanes_of(rank, ranks, lanes) for rank in range(ranks)), strict=True))
    assert [lane for turn in rounds for lane in turn] == list(range(len(rounds) * ranks))
    assert (len(rounds) - 1) * ranks < lanes
