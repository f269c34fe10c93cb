"""One rank of the training: its process groups, its device and its part of the model. It outlives an attempt."""

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
from headway.train.compute import arithmetic
from headway.train.compute.optimizer import build_optimizer
from headway.train.compute.sharding import build_model
from headway.train.compute.state import State
from headway.train.compute.step import Step
from headway.train.compute.transfer import Transfer
from headway.train.host.preemption import Preemption
from headway.train.host.rank_heartbeat import HeartbeatWriter
from headway.train.startup_timer import StartupTimer


@dataclass
class Rank:
    """One of the processes that train a run together."""

    recipe: Recipe
    run: Run
    preemption: Preemption
    heartbeat: HeartbeatWriter
    device: torch.device
    dataset: Dataset
    collectives: Collectives
    """For the main thread."""
    save_collectives: Collectives
    """For the thread that saves checkpoints."""
    environment: Environment
    state: State
    step: Step
    transfer: Transfer

    @classmethod
    def join(
        cls, recipe: Recipe, run: Run, preemption: Preemption, heartbeat: HeartbeatWriter, startup: StartupTimer
    ) -> "Rank":
        """Join the other ranks, and build this rank's part of the model. Collective."""
        device = choose_device(recipe)
        arithmetic.configure(recipe, device)
        if os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        collectives, save_collectives = (Collectives(dist.new_group(backend="gloo")) for _ in range(2))
        startup.done("group")
        dataset = open_data(recipe)
        model = build_model(recipe, dataset.vocabulary, device)
        state = State(recipe, model, build_optimizer(recipe, model, device))
        startup.done("build")
        return cls(
            recipe=recipe,
            run=run,
            preemption=preemption,
            heartbeat=heartbeat,
            device=device,
            dataset=dataset,
            collectives=collectives,
            save_collectives=save_collectives,
            environment=arithmetic.environment(recipe, device),
            state=state,
            step=Step(recipe, state, device, collectives.group, heartbeat),
            transfer=Transfer(device),
        )


def choose_device(recipe: Recipe) -> torch.device:
    """The GPU of this rank, or the CPU.

    Raises:
        UsageError: the recipe requires a GPU, and there is none for this rank.
    """
    setting, gpus = recipe.machine.device, torch.cuda.device_count()
    if setting == "cpu" or (setting == "auto" and not gpus):
        return torch.device("cpu")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if local_rank >= gpus:
        raise UsageError(
            f"local rank {local_rank} has no GPU: this machine has {gpus}; "
            f"lower machine.ranks or use machine.device=cpu"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
