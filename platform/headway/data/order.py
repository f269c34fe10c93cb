"""The order of the data: a pure function from (seed, token position) to blocks, without state.

Block index i of a run (token position divided by block length) goes through three steps, each O(1):

1. *Stage.* Find the curriculum stage that contains i.
2. *Mixture.* A stage repeats a period of `PERIOD` slots. Each source has slots in proportion to its weight, spread
   evenly and jittered by a key. The number of blocks that the source gave before i is the sum of its blocks in earlier
   stages, its slots in whole periods, and the rank of the slot among the source's slots.
3. *Permutation.* That count, divided by the source's number of blocks, gives an epoch and a position in it. A keyed
   Feistel network (Luby and Rackoff, 1988) with cycle walking (Black and Rogaway, 2002) gives each epoch its own
   permutation of the positions. So each block of a source is used exactly once per epoch, across stages.

All arithmetic is on 64-bit integers, or on IEEE doubles without sums of arrays, so every machine gets equal results.
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
"""Slots in a period. Shares are exact to 1/131,072, and every source with weight has at least one slot."""
ROUNDS = 6
"""Feistel rounds, an even number. Four make a pseudo-random permutation; two more remove structure in small domains."""
MIN_DOMAIN_BITS = 6
"""Bits of the smallest Feistel domain, 64 values: cycle walking in it takes at most 64 steps."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Constants of SplitMix64 (Steele et al., 2014)."""


class Mixture:
    """A period of slots, divided among sources by weight.

    Attributes:
        slots: [PERIOD] source of each slot.
        ranks: [PERIOD] number of earlier slots of the period with the same source.
        counts: [sources] slots of each source.
    """

    def __init__(self, weights: Sequence[float], key: int) -> None:
        """`weights`: one per source, at least one of them positive; `key` jitters the slots."""
        self.counts = _apportion(weights)
        source = np.repeat(np.arange(len(weights)), self.counts)
        starts = np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        rank = np.arange(PERIOD) - starts
        random = mix(np.arange(PERIOD, dtype=np.uint64) * GOLDEN + np.uint64(key))
        jitter = (random >> np.uint64(11)).astype(np.float64) / 2.0**53
        spread = np.lexsort((source, (rank + jitter) / self.counts[source]))
        self.slots: Int64 = source[spread]
        # The jitter is less than one slot, so the slots of a source stay in the order of their ranks.
        self.ranks: Int64 = rank[spread]

    def counts_before(self, index: int) -> Int64:
        """[sources] slots of each source among the first `index` slots, over any number of periods."""
        periods, slot = divmod(index, PERIOD)
        return periods * self.counts + np.bincount(self.slots[:slot], minlength=len(self.counts))


class Permutation(NamedTuple):
    """A permutation of [0, size) for each epoch."""

    size: int
    key: int

    def apply(self, epochs: Int64, positions: Int64) -> Int64:
        """The image, [n], of each of `positions`, [n] in [0, size), in its epoch, [n]."""
        bits = max(MIN_DOMAIN_BITS, (self.size - 1).bit_length())
        rounds = np.arange(1, ROUNDS + 1, dtype=np.uint64)[:, np.newaxis]
        keys = mix(mix(epochs.astype(np.uint64) * GOLDEN + np.uint64(self.key)) + rounds)
        images = _feistel(positions.astype(np.uint64), keys, bits)
        while (outside := np.flatnonzero(images >= self.size)).size:
            images[outside] = _feistel(images[outside], keys[:, outside], bits)
        return images.astype(np.int64)


class CurriculumStage(NamedTuple):
    """One stage of the curriculum, in blocks."""

    start: int
    sequence_tokens: int
    mixture: Mixture
    blocks_before: Int64
    """[sources] blocks of each source before this stage."""


class Order:
    """The order of the blocks of one recipe.

    Attributes:
        sources: sorted names; the index of a source is its index here.
    """

    def __init__(self, recipe: Recipe, blocks: Mapping[str, int]) -> None:
        """`blocks`: number of blocks of each source.

        Raises:
            DataError: a stage gives weight to a source that has no block, or no source with weight has a block.
        """
        self.sources = tuple(sorted(blocks))
        self.block_tokens = recipe.data.block_tokens
        self.permutations = [
            Permutation(blocks[name], derive_key(recipe.seed, "source", name)) for name in self.sources
        ]
        self.stages: list[CurriculumStage] = []
        for number, stage in enumerate(recipe.data.curriculum):
            weights: Mapping[str, float] = stage.weights or blocks
            if empty := [name for name in sorted(stage.weights or ()) if not blocks.get(name)]:
                raise DataError(
                    f"data.curriculum.{number}: gives weight to {', '.join(empty)}, which has no block of "
                    f"{self.block_tokens:,} tokens; add text, or lower data.block_tokens"
                )
            if not any(weights.get(name) for name in self.sources):
                raise DataError(
                    f"data.curriculum.{number}: no source with weight has a block of {self.block_tokens:,} tokens; "
                    "add text, or lower data.block_tokens"
                )
            mixture = Mixture(
                [weights.get(name, 0) for name in self.sources], derive_key(recipe.seed, "stage", str(number))
            )
            start = stage.from_tokens // self.block_tokens
            blocks_before = np.zeros(len(self.sources), dtype=np.int64)
            if self.stages:
                last = self.stages[-1]
                blocks_before = last.blocks_before + last.mixture.counts_before(start - last.start)
            sequence_tokens = stage.sequence_tokens or self.block_tokens
            self.stages.append(CurriculumStage(start, sequence_tokens, mixture, blocks_before))
        self.starts = np.array([stage.start for stage in self.stages], dtype=np.int64)

    def locate(self, indices: Int64) -> tuple[Int64, Int64]:
        """The source and the block in it, [n] each, for the block indices [n] of a run."""
        if indices.size and indices.min() < 0:
            raise ValueError(f"block index {indices.min()} is before the start of a run")
        sources, counts = np.empty_like(indices), np.empty_like(indices)
        stages = np.searchsorted(self.starts, indices, side="right") - 1
        for number in np.unique(stages):
            stage, selected = self.stages[number], stages == number
            periods, slots = np.divmod(indices[selected] - stage.start, PERIOD)
            source = stage.mixture.slots[slots]
            sources[selected] = source
            counts[selected] = (
                stage.blocks_before[source] + periods * stage.mixture.counts[source] + stage.mixture.ranks[slots]
            )
        blocks = np.empty_like(indices)
        for number in np.unique(sources):
            permutation, selected = self.permutations[number], sources == number
            blocks[selected] = permutation.apply(*np.divmod(counts[selected], permutation.size))
        return sources, blocks

    def sequence_tokens(self, position_tokens: int) -> int:
        """Length of the rows that blocks are split into at a token position."""
        index = position_tokens // self.block_tokens
        return self.stages[int(np.searchsorted(self.starts, index, side="right")) - 1].sequence_tokens


def derive_key(seed: int, *words: str) -> int:
    """A 64-bit key from the seed and the words that name its purpose."""
    text = "\0".join((str(seed), *words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def mix(values: UInt64) -> UInt64:
    """The finalizer of SplitMix64: a pseudo-random bijection of 64-bit words."""
    values = (values ^ (values >> np.uint64(30))) * MULTIPLIERS[0]
    values = (values ^ (values >> np.uint64(27))) * MULTIPLIERS[1]
    return values ^ (values >> np.uint64(31))


def _feistel(values: UInt64, keys: UInt64, bits: int) -> UInt64:
    """Permute `bits`-bit values, [n], with their round keys, [ROUNDS, n]."""
    low, high = bits - bits // 2, bits // 2
    left, right = values >> np.uint64(low), values & np.uint64((1 << low) - 1)
    left_bits, right_bits = high, low
    for key in keys:
        random = (right + key) * MULTIPLIERS[0]
        random = (random ^ (random >> np.uint64(32))) * MULTIPLIERS[1]
        left, right = right, left ^ (random >> np.uint64(64 - left_bits))
        left_bits, right_bits = right_bits, left_bits
    return (left << np.uint64(low)) | right


def _apportion(weights: Sequence[float]) -> Int64:
    """Slots of each source by the largest-remainder method, at least one for a positive weight."""
    total = math.fsum(weights)
    exact = [weight / total * PERIOD for weight in weights]
    counts = [max(int(share), weight > 0) for share, weight in zip(exact, weights, strict=True)]
    while (surplus := PERIOD - sum(counts)) != 0:
        if surplus > 0:  # give a slot to the source furthest below its exact share; the first of equals
            below = [share - count for share, count in zip(exact, counts, strict=True)]
            counts[below.index(max(below))] += 1
        else:  # take a slot from the largest source, for sources raised to one slot
            counts[counts.index(max(counts))] -= 1
    return np.array(counts, dtype=np.int64)
