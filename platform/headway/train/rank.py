"""What a training process is: its place among the ranks, its device, its share of the model. Outlives an attempt."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from headway.checkpoint.collectives import Collectives
from headway.checkpoint.manifest import Environment
from headway.data import Dataset, open_data
from headway.errors import UsageError
from headway.recipe import Recipe
from headway.runs import Run
from headway.train import arithmetic
from headway.train.heartbeat import HeartbeatWriter
from headway.train.preemption import Preemption
from headway.train.sharding import build, optimizer
from headway.train.startup_timer import StartupTimer
from headway.train.state import State
from headway.train.step import Step
from headway.train.transfer import Transfer


@dataclass
class Rank:
    """One of the processes that train a run together."""

    recipe: Recipe
    run: Run
    preemption: Preemption
    pulse: HeartbeatWriter
    device: torch.device
    dataset: Dataset
    ranks: Collectives
    """For the main thread."""
    background: Collectives
    """For the thread that saves."""
    environment: Environment
    state: State
    step: Step
    transfer: Transfer

    @classmethod
    def join(
        cls, recipe: Recipe, run: Run, preemption: Preemption, pulse: HeartbeatWriter, start: StartupTimer
    ) -> "Rank":
        """Join the other ranks, and build this one's share of the model. Collective."""
        device = choose_device(recipe)
        arithmetic.fix(recipe, device)
        if os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        ranks, background = Collectives(dist.new_group(backend="gloo")), Collectives(dist.new_group(backend="gloo"))
        start.done("group")
        dataset = open_data(recipe)
        model = build(recipe, dataset.vocabulary, device)
        state = State(recipe, model, optimizer(recipe, model, device))
        start.done("build")
        return cls(
            recipe=recipe,
            run=run,
            preemption=preemption,
            pulse=pulse,
            device=device,
            dataset=dataset,
            ranks=ranks,
            background=background,
            environment=arithmetic.environment(recipe, device),
            state=state,
            step=Step(recipe, state, device, ranks.group, pulse),
            transfer=Transfer(device),
        )


def choose_device(recipe: Recipe) -> torch.device:
    """The GPU of this rank, or the CPU.

    Raises:
        UsageError: the recipe wants a GPU, and there is none for this rank.
    """
    wanted, gpus = recipe.machine.device, torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return torch.device("cpu")
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place >= gpus:
        raise UsageError(
            f"rank {place} has no GPU: this machine has {gpus}; lower machine.ranks or use machine.device=cpu"
        )
    device = torch.device("cuda", place)
    torch.cuda.set_device(device)
    return device
