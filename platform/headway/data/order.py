"""The order of the data: a pure function from (seed, token position) to blocks, with nothing to save.

Block index i of a run (its token position over the block's length) goes through three steps, each O(1):

1. *Stage.* The curriculum's stage that holds i.
2. *Mixture.* A stage repeats a period of `PERIOD` slots. Each source has slots in proportion to its weight, spread
   evenly and jittered by a key. Whole periods, and the slot's rank among its source's slots, say how many blocks
   the source gave before i; what it gave in earlier stages is added.
3. *Permutation.* That count, divided by the source's number of blocks, is an epoch and a place in it. A keyed
   Feistel network (Luby and Rackoff, 1988) with cycle walking (Black and Rogaway, 2002) permutes the places anew
   in each epoch. So each block of a source is used exactly once in each of its epochs, across stages.

Everything is integer arithmetic on 64 bits and IEEE double arithmetic without sums of arrays, so it is equal on
every machine.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headway.errors import DataError
from headway.recipe import Recipe

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]

PERIOD = 1 << 16
"""Slots in a period: shares are exact to 1/131,072, and no source's share is rounded to nothing."""
ROUNDS = 6
"""Feistel rounds, an even number; 4 make a pseudo-random permutation, two more keep small domains free of structure."""
SMALLEST_BITS = 6
"""Bits of the smallest Feistel domain, 64 places: there cycle walking takes at most 64 turns."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Constants of SplitMix64 (Steele et al., 2014)."""


class Mixture:
    """A period of slots shared out among sources by weight.

    Attributes:
        slots: [PERIOD] source of each slot.
        ranks: [PERIOD] how many earlier slots of the period have the same source.
        counts: [sources] slots of each source.
    """

    def __init__(self, weights: Sequence[float], key: int) -> None:
        """`weights`: one for each source, at least one of them positive; `key` jitters the slots."""
        self.counts = _share_out(weights)
        source = np.repeat(np.arange(len(weights)), self.counts)
        starts = np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        rank = np.arange(PERIOD) - starts
        random = mix(np.arange(PERIOD, dtype=np.uint64) * GOLDEN + np.uint64(key))
        jitter = (random >> np.uint64(11)).astype(np.float64) / 2.0**53
        spread = np.lexsort((source, (rank + jitter) / self.counts[source]))
        self.slots: Int64 = source[spread]
        # The jitter keeps a source's slots in the order of their ranks.
        self.ranks: Int64 = rank[spread]

    def before(self, index: int) -> Int64:
        """[sources] how many of the first `index` slots each source has, over as many periods as it takes."""
        periods, slot = divmod(index, PERIOD)
        return periods * self.counts + np.bincount(self.slots[:slot], minlength=len(self.counts))


class Permutation(NamedTuple):
    """For each epoch, a permutation of [0, size)."""

    size: int
    key: int

    def apply(self, epochs: Int64, places: Int64) -> Int64:
        """Where each of `places`, [n] in [0, size), goes in its epoch, [n]."""
        bits = max(SMALLEST_BITS, (self.size - 1).bit_length())
        turns = np.arange(1, ROUNDS + 1, dtype=np.uint64)[:, np.newaxis]
        keys = mix(mix(epochs.astype(np.uint64) * GOLDEN + np.uint64(self.key)) + turns)
        found = _feistel(places.astype(np.uint64), keys, bits)
        while (outside := np.flatnonzero(found >= self.size)).size:
            found[outside] = _feistel(found[outside], keys[:, outside], bits)
        return found.astype(np.int64)


class CurriculumStage(NamedTuple):
    """One stage of the curriculum, in blocks."""

    start: int
    sequence_tokens: int
    mixture: Mixture
    before: Int64
    """[sources] blocks that each source gave before this stage."""


class Order:
    """The order of one recipe's blocks.

    Attributes:
        sources: names, sorted; a source's index is its place here.
    """

    def __init__(self, recipe: Recipe, blocks: Mapping[str, int]) -> None:
        """`blocks`: number of blocks of each source.

        Raises:
            DataError: a stage gives weight to a source without a block, or to none that has one.
        """
        self.sources = tuple(sorted(blocks))
        self.block_tokens = recipe.data.block_tokens
        self.permutations = [Permutation(blocks[name], keyed(recipe.seed, "source", name)) for name in self.sources]
        self.stages: list[CurriculumStage] = []
        for number, stage in enumerate(recipe.data.curriculum):
            weights: Mapping[str, float] = stage.weights or blocks
            if empty := [name for name in sorted(stage.weights or ()) if not blocks.get(name)]:
                raise DataError(
                    f"data.curriculum.{number}: gives weight to {', '.join(empty)}, which has no block of "
                    f"{self.block_tokens:,} tokens"
                )
            if not any(weights.get(name) for name in self.sources):
                raise DataError(f"data.curriculum.{number}: no source has a block of {self.block_tokens:,} tokens")
            mixture = Mixture([weights.get(name, 0) for name in self.sources], keyed(recipe.seed, "stage", str(number)))
            start = stage.from_tokens // self.block_tokens
            before = np.zeros(len(self.sources), dtype=np.int64)
            if self.stages:
                last = self.stages[-1]
                before = last.before + last.mixture.before(start - last.start)
            self.stages.append(CurriculumStage(start, stage.sequence_tokens or self.block_tokens, mixture, before))
        self.starts = np.array([stage.start for stage in self.stages], dtype=np.int64)

    def locate(self, indices: Int64) -> tuple[Int64, Int64]:
        """The source's index and its block, [n] each, of the block indices [n] of a run."""
        if indices.size and indices.min() < 0:
            raise ValueError(f"block index {indices.min()} is before the start of a run")
        sources, places = np.empty_like(indices), np.empty_like(indices)
        stages = np.searchsorted(self.starts, indices, side="right") - 1
        for number in np.unique(stages):
            stage, here = self.stages[number], stages == number
            periods, slots = np.divmod(indices[here] - stage.start, PERIOD)
            source = stage.mixture.slots[slots]
            sources[here] = source
            places[here] = stage.before[source] + periods * stage.mixture.counts[source] + stage.mixture.ranks[slots]
        blocks = np.empty_like(indices)
        for number in np.unique(sources):
            permutation, here = self.permutations[number], sources == number
            blocks[here] = permutation.apply(*np.divmod(places[here], permutation.size))
        return sources, blocks

    def sequence_tokens(self, position_tokens: int) -> int:
        """Length of the rows that blocks are cut into at a token position."""
        index = position_tokens // self.block_tokens
        return self.stages[int(np.searchsorted(self.starts, index, side="right")) - 1].sequence_tokens


def keyed(seed: int, *words: str) -> int:
    """A 64-bit key from the seed and what it is for."""
    text = "\0".join((str(seed), *words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def mix(values: UInt64) -> UInt64:
    """A bijection of 64-bit words that looks random: the finaliser of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * MULTIPLIERS[0]
    values = (values ^ (values >> np.uint64(27))) * MULTIPLIERS[1]
    return values ^ (values >> np.uint64(31))


def _feistel(values: UInt64, keys: UInt64, bits: int) -> UInt64:
    """Permute `bits`-bit values, [n], by their keys, [ROUNDS, n]."""
    low, high = bits - bits // 2, bits // 2
    left, right = values >> np.uint64(low), values & np.uint64((1 << low) - 1)
    width, other = high, low  # of left, of right
    for key in keys:
        random = (right + key) * MULTIPLIERS[0]
        random = (random ^ (random >> np.uint64(32))) * MULTIPLIERS[1]
        left, right = right, left ^ (random >> np.uint64(64 - width))
        width, other = other, width
    return (left << np.uint64(low)) | right


def _share_out(weights: Sequence[float]) -> Int64:
    """Slots of each source: by largest remainder, and at least one for a positive weight."""
    total = math.fsum(weights)
    exact = [weight / total * PERIOD for weight in weights]
    counts = [max(int(share), weight > 0) for share, weight in zip(exact, weights, strict=True)]
    while (left := PERIOD - sum(counts)) != 0:
        if left > 0:  # to the one furthest below its exact share; the first of equals
            below = [share - count for share, count in zip(exact, counts, strict=True)]
            counts[below.index(max(below))] += 1
        else:  # from the largest, for those that would have had none
            counts[counts.index(max(counts))] -= 1
    return np.array(counts, dtype=np.int64)
