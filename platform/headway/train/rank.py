"""What a training process is: its place among the ranks, its device, its share of the model. Outlives an attempt."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

import headway
from headway.checkpoint.manifest import Environment
from headway.checkpoint.ranks import Ranks
from headway.data import Dataset, open_data
from headway.errors import UsageError
from headway.recipe import Recipe
from headway.store import Run
from headway.train.preemption import Preemption
from headway.train.pulse import Pulse
from headway.train.sharding import build, optimizer, precision
from headway.train.start import Start
from headway.train.state import State


@dataclass
class Rank:
    """One of the processes that train a run together."""

    recipe: Recipe
    run: Run
    preemption: Preemption
    pulse: Pulse
    device: torch.device
    dataset: Dataset
    ranks: Ranks
    """For the main thread."""
    background: Ranks
    """For the thread that saves."""
    environment: Environment
    state: State

    @classmethod
    def join(cls, recipe: Recipe, run: Run, preemption: Preemption, pulse: Pulse, start: Start) -> "Rank":
        """Join the other ranks, and build this one's share of the model. Collective."""
        device = choose_device(recipe)
        settle_arithmetic(recipe, device)
        if os.environ.get("WORLD_SIZE") == os.environ.get("LOCAL_WORLD_SIZE"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are on this machine
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        ranks, background = Ranks(dist.new_group(backend="gloo")), Ranks(dist.new_group(backend="gloo"))
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
            environment=environment(recipe, device),
            state=state,
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


def settle_arithmetic(recipe: Recipe, device: torch.device) -> None:
    """Fix all that could change bits from one attempt to the next."""
    torch.set_num_threads(recipe.train.threads)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        if recipe.train.determinism == "bitwise":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(mode=True, warn_only=True)


def environment(recipe: Recipe, device: torch.device) -> Environment:
    """What arithmetic depends on, besides the recipe."""
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return Environment(
        device=model,
        precision=precision(recipe, device),
        threads=recipe.train.threads,
        torch=torch.__version__,
        headway=headway.__version__,
    )


def differences(before: Environment, now: Environment) -> str:
    """What of the environment is not what it was, for people; another Headway alone changes no bits."""
    old, new = before.model_dump(), now.model_dump()
    return ", ".join(f"{key}: {old[key]} -> {new[key]}" for key in old if old[key] != new[key] and key != "headway")


def _processor() -> str:
    """Name of the CPU, with the instruction set that torch uses of it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'} ({torch.backends.cpu.get_cpu_capability()})"
