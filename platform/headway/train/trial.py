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

from headway.data import MicroBatch, open_data
from headway.errors import UsageError
from headway.model import memory
from headway.recipe import Recipe
from headway.train import arithmetic
from headway.train.rank import Rank, choose_device

STRICT = re.compile(r"(\S+) does not have a deterministic implementation")
"""How torch says that an operation has no deterministic kernel."""


def run(rank: Rank, position: int) -> None:
    """Compute the gradient of made-up text, cut as at `position` [tokens], and forget it. Collective.

    Raises:
        UsageError: an operation has no deterministic kernel here, and the recipe asks for one.
        torch.OutOfMemoryError: the batch does not fit.
    """
    transfer, plan = rank.transfer, rank.recipe.train
    turns = -(-plan.lanes // rank.ranks.size)
    with naming(rank.device):
        for batch in made_up(rank.recipe, rank.dataset.vocabulary, rank.dataset.order.sequence_tokens(position)):
            lane = [transfer(batch)] * min(2, plan.lane_micro_batches)  # the second one is added to the first
            rank.step.gradient([lane] * min(2, turns), rank.preemption)
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
    """Micro-batches of both kinds: each row one document, and each row one with a single token after it."""
    shape = (recipe.train.micro_batch_tokens // sequence, sequence)
    inputs, targets = np.random.default_rng(recipe.seed).integers(0, vocabulary, (2, *shape))
    if recipe.model.attention == "causal":
        yield MicroBatch(inputs, targets, None)
        return
    whole = np.zeros(shape, dtype=np.int32)
    yield MicroBatch(inputs, targets, whole)
    tailed = whole.copy()
    tailed[:, -1] = 1
    yield MicroBatch(inputs, targets, tailed)


def out_of_memory(recipe: Recipe) -> str:
    """What to say when this rank's memory does not suffice: what was foreseen, and what would fit."""
    device = choose_device(recipe)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return memory.advice(
        recipe,
        open_data(recipe).vocabulary,
        ranks=int(os.environ["WORLD_SIZE"]),
        half=arithmetic.precision(recipe, device) == "bf16",
        total=total,
        device=arithmetic.environment(recipe, device).device,
    )
