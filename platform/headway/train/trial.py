"""A throw-away batch before a run is claimed: what cannot work on this machine fails before it costs the run anything.

It is where an operation without a deterministic kernel is found, a batch that does not fit into memory, and where
compiled code is made or found.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from headway.data import MicroBatch
from headway.errors import UsageError
from headway.model import memory
from headway.recipe import Recipe
from headway.train.arithmetic import precision
from headway.train.rank import Rank

STRICT = re.compile(r"(\S+) does not have a deterministic implementation")
"""How torch says that an operation has no deterministic kernel."""


def rehearse(rank: Rank, position: int) -> None:
    """Compute the gradient of made-up text, cut as at `position` [tokens], and forget it. Collective.

    Raises:
        UsageError: an operation has no deterministic kernel here, and the recipe asks for one.
        torch.OutOfMemoryError: the batch does not fit.
    """
    transfer, plan = rank.transfer, rank.recipe.train
    with naming(rank.device):
        for batch in made_up(rank.recipe, rank.dataset.vocabulary, rank.dataset.order.sequence_tokens(position)):
            rank.step.gradient([[transfer(batch)] * min(2, plan.lane_micro_batches)], rank.preemption)
            rank.step.drop()


@contextmanager
def naming(device: torch.device) -> Iterator[None]:
    """Raise UsageError with the name of the operation, where torch finds that one has no deterministic kernel."""
    try:
        yield
    except RuntimeError as error:
        if not (found := STRICT.search(str(error))):
            raise
        raise UsageError(
            f"{found[1]} has no deterministic kernel on {device.type}, and the recipe says train.determinism: bitwise; "
            f"use determinism: fast, whose runs repeat their bits only as far as the kernels do, or a model without "
            f"that operation"
        ) from error


def made_up(recipe: Recipe, vocabulary: int, sequence: int) -> Iterator[MicroBatch]:
    """Micro-batches of every kind that a run meets: each row one document, and each row two of them."""
    shape = (recipe.train.micro_batch_tokens // sequence, sequence)
    inputs, targets = np.random.default_rng(recipe.seed).integers(0, vocabulary, (2, *shape))
    if recipe.model.attention == "causal":
        yield MicroBatch(inputs, targets, None)
        return
    whole = np.zeros(shape, dtype=np.int32)
    yield MicroBatch(inputs, targets, whole)
    halves = whole.copy()
    halves[:, sequence // 2 :] = 1
    yield MicroBatch(inputs, targets, halves)


def out_of_memory(rank: Rank) -> str:
    """What to say when memory does not suffice: what was foreseen, and what would fit."""
    if rank.device.type == "cuda":
        total = torch.cuda.get_device_properties(rank.device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return memory.advice(
        rank.recipe,
        rank.dataset.vocabulary,
        ranks=rank.ranks.size,
        half=precision(rank.recipe, rank.device) == "bf16",
        total=total,
        device=rank.environment.device,
    )
