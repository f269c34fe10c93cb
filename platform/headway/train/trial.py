"""A trial batch before the run is claimed, so that what cannot work on this node fails at no cost to the run.

It finds operations without a deterministic kernel and batches that do not fit into memory, and compiles the model.
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
from headway.train.compute import arithmetic
from headway.train.compute.optimizer import OPTIMIZERS
from headway.train.rank import Rank, choose_device

NONDETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")
"""torch's message about an operation without a deterministic kernel."""


def run(rank: Rank, position: int) -> None:
    """Compute the gradient of random text, in sequences as at `position` [tokens], and discard it. Collective.

    Raises:
        UsageError: an operation has no deterministic kernel here, and the recipe requires one.
        torch.OutOfMemoryError: the batch does not fit.
    """
    transfer, plan = rank.transfer, rank.recipe.train
    rounds = -(-plan.lanes // rank.collectives.size)
    with naming_operation(rank.device):
        for batch in random_batches(rank.recipe, rank.dataset.vocabulary, rank.dataset.order.sequence_tokens(position)):
            lane = [transfer(batch)] * min(2, plan.lane_micro_batches)  # two, to try the sum of two gradients
            rank.step.forward_backward([lane] * min(2, rounds), rank.preemption)
            rank.step.drop()


@contextmanager
def naming_operation(device: torch.device) -> Iterator[None]:
    """Turn torch's error about an operation without a deterministic kernel into a UsageError that names it."""
    try:
        yield
    except RuntimeError as error:
        if not (match := NONDETERMINISTIC.search(str(error))):
            raise
        raise UsageError(
            f"{match[1]} has no deterministic kernel on {device.type}, and the recipe says train.determinism: bitwise; "
            f"use determinism: fast, whose bits repeat only as far as the kernels are deterministic, or a model "
            f"without that operation"
        ) from error


def random_batches(recipe: Recipe, vocabulary: int, sequence: int) -> Iterator[MicroBatch]:
    """Micro-batches of random tokens, of both kinds: one document per row, and two (the second has one token)."""
    shape = (recipe.train.micro_batch_tokens // sequence, sequence)
    inputs, targets = np.random.default_rng(recipe.seed).integers(0, vocabulary, (2, *shape))
    if not recipe.model.needs_documents:
        yield MicroBatch(inputs, targets, None)
        return
    one_document = np.zeros(shape, dtype=np.int32)
    yield MicroBatch(inputs, targets, one_document)
    two_documents = one_document.copy()
    two_documents[:, -1] = 1
    yield MicroBatch(inputs, targets, two_documents)


def out_of_memory(recipe: Recipe) -> str:
    """The error message if this rank's memory is too small: the estimate, and settings that would fit."""
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
        slots=len(OPTIMIZERS[recipe.train.optimizer.kind].slots),
        total=total,
        device=arithmetic.environment(recipe, device).device,
    )
