"""A single rank: a sharded model of some shape with its optimizer, and synthetic text for it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from bench.card.device import Device
from headway import recipe as recipes
from headway.data import MicroBatch
from headway.recipe import Recipe
from headway.train.compute import arithmetic
from headway.train.compute.optimizer import build_optimizer
from headway.train.compute.sharding import shard_model
from headway.train.compute.state import State
from headway.train.compute.step import Gradient, Step
from headway.train.compute.transfer import DeviceBatch, Transfer
from headway.train.host.preemption import Preemption
from headway.train.host.rank_heartbeat import HeartbeatWriter

RECIPES = Path(__file__).parents[2] / "jobs/recipes"
LLAMA_8B = {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "ffn_width": 14336, "rope_theta": 500_000.0}
"""Llama 3 8B (Grattafiori et al., 2024); its vocabulary is 128,256. A card holds only a few of its layers."""
DOCUMENT_TOKENS = 512
"""Mean document length in text of many documents [tokens]."""


@dataclass(frozen=True)
class Shape:
    """A model size."""

    name: str
    recipe: str
    """File in `jobs/recipes`."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Changes to the recipe, by dotted key."""

    def plan(self, **changes: Any) -> Recipe:
        """The recipe with `changes`, by dotted key with a double underscore for each dot."""
        document = recipes.load(RECIPES / self.recipe).model_dump(mode="json")
        own = {"data.tokenizer.vocabulary": 32_768, "data.curriculum": [{"from_tokens": 0}]}
        for key, value in {
            **own,
            **dict(self.changes),
            **{k.replace("__", "."): v for k, v in changes.items()},
        }.items():
            *sections, name = key.split(".")
            target = document
            for section in sections:
                target = target[section]
            target[name] = value
        return Recipe.model_validate_json(json.dumps(document))


@contextmanager
def single_process_group() -> Iterator[dist.ProcessGroup]:
    """A process group of this process only; yields a gloo group for the ranks' agreements."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="localhost")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        yield dist.new_group(backend="gloo")
    finally:
        dist.destroy_process_group()


class Lab:
    """A model with optimizer and training step."""

    def __init__(self, recipe: Recipe, device: Device, group: dist.ProcessGroup) -> None:
        self.recipe, self.device = recipe, device
        self.vocabulary = recipe.data.tokenizer.vocabulary
        arithmetic.configure(recipe, device.torch)
        model = shard_model(recipe, self.vocabulary, device.torch)
        randomize(model)
        self.state = State(recipe, model, build_optimizer(recipe, model, device.torch))
        self.step = Step(recipe, self.state, device.torch, group, HeartbeatWriter())
        self.transfer = Transfer(device.torch)
        self.random = np.random.default_rng(recipe.seed)

    def lanes(self, *, many: bool) -> list[list[DeviceBatch]]:
        """A batch of synthetic text: one document per row, or `many`."""
        plan = self.recipe.train
        return [[self.batch(many=many) for _ in range(plan.lane_micro_batches)] for _ in range(plan.lanes)]

    def batch(self, *, many: bool) -> DeviceBatch:
        """A micro-batch of synthetic text."""
        length = self.recipe.data.block_tokens
        shape = (self.recipe.train.micro_batch_tokens // length, length)
        inputs, targets = self.random.integers(0, self.vocabulary, (2, *shape))
        ends = self.random.random(shape) < (1 / DOCUMENT_TOKENS if many else 0)
        return self.transfer(MicroBatch(inputs, targets, ends.cumsum(1).astype(np.int32)))

    def train(self, lanes: list[list[DeviceBatch]]) -> Gradient:
        """One training step of Headway."""
        gradient, _ = self.step.forward_backward(lanes, Preemption())
        self.step.apply(self.recipe.train.tokens // 2, gradient)
        return gradient


@torch.no_grad()
def randomize(model: torch.nn.Module) -> None:
    """Draw random parameters on the device; faster than a run's initialization, which is on one CPU."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        assert isinstance(parameter, DTensor)
        local = parameter.to_local()
        local.fill_(1.0) if parameter.ndim == 1 else local.normal_(0.0, 0.02)
