"""Headway's training step against a plain FSDP2 loop on the same model, and the cost of a checkpoint, in one run.

    python -m bench.step [--recipe FILE] [--ranks N] [--rounds N]

Three variants train in the same processes, interleaved by batch: `plain` is a plain loop (gradient accumulation without
sync, torch's clipping, fused AdamW); `fast` and `bitwise` are Headway's. It prints medians and ratios.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.multiprocessing.spawn import spawn

from bench.plain import plain_step
from headway import recipe as recipes
from headway.checkpoint.collectives import Collectives
from headway.checkpoint.commit import Lineage
from headway.checkpoint.manifest import checksum
from headway.checkpoint.retention import Retention
from headway.checkpoint.saver import Saver
from headway.data import Dataset, open_data
from headway.data.build import build
from headway.model import ARCHITECTURES, initialize
from headway.objectstore import open_store
from headway.recipe import Recipe
from headway.runs import Run, this_process
from headway.train.compute import arithmetic
from headway.train.compute.optimizer import build_optimizer
from headway.train.compute.sharding import build_model
from headway.train.compute.state import State
from headway.train.compute.step import Step, lanes_of
from headway.train.compute.transfer import DeviceBatch, Transfer
from headway.train.host.preemption import Preemption
from headway.train.host.rank_heartbeat import HeartbeatWriter
from headway.train.rank import choose_device
from headway.train.schedule import learning_rate


class PlainTraining:
    """A plain FSDP2 training loop."""

    def __init__(self, recipe: Recipe, vocabulary: int, device: torch.device) -> None:
        architecture = ARCHITECTURES[recipe.model.kind]
        model = architecture.on_meta(recipe.model, vocabulary, recipe.train.loss_chunk_tokens)
        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
        model.to_empty(device=device)
        initialize(model, recipe.seed)
        assert isinstance(model, FSDPModule)
        self.recipe, self.model = recipe, model
        self.adam = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def train(self, position: int, lanes: list[list[DeviceBatch]]) -> None:
        """One step."""

        def loss(batch: DeviceBatch) -> Tensor:
            total: Tensor = self.model(batch.inputs, batch.targets, batch.documents)
            return total / self.recipe.train.batch_tokens * dist.get_world_size()

        for group in self.adam.param_groups:
            group["lr"] = learning_rate(self.recipe, position)
        plain_step(self.model, self.adam, [batch for lane in lanes for batch in lane], loss)


class HeadwayTraining:
    """Headway's training step in one determinism mode."""

    def __init__(self, recipe: Recipe, mode: str, vocabulary: int, device: torch.device, group: Any) -> None:
        document = recipe.model_dump(mode="json")
        document["train"]["determinism"] = mode
        own = Recipe.model_validate_json(json.dumps(document))
        model = build_model(own, vocabulary, device)
        self.state = State(own, model, build_optimizer(own, model, device))
        self.step = Step(own, self.state, device, group, HeartbeatWriter())

    def train(self, position: int, lanes: list[list[DeviceBatch]]) -> None:
        """One step."""
        gradient, _ = self.step.forward_backward(lanes, Preemption())
        self.step.apply(position, gradient)


def measure(rank: int, ranks: int, recipe: Recipe, rounds: int, folder: str) -> None:
    """Measure on one rank; rank 0 prints."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="29533", RANK=str(rank), WORLD_SIZE=str(ranks))
    os.environ.update(LOCAL_RANK=str(rank))
    device = choose_device(recipe)
    arithmetic.configure(recipe, device)
    transfer = Transfer(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=ranks)
    group = dist.new_group(backend="gloo")
    dataset = open_data(recipe)
    variants: dict[str, PlainTraining | HeadwayTraining] = {
        "plain": PlainTraining(recipe, dataset.vocabulary, device),
        "fast": HeadwayTraining(recipe, "fast", dataset.vocabulary, device, group),
        "bitwise": HeadwayTraining(recipe, "bitwise", dataset.vocabulary, device, group),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    own_lanes = [lane % recipe.train.lanes for lane in lanes_of(rank, ranks, recipe.train.lanes)]
    for turn in range(rounds + 2):
        position = turn * recipe.train.batch_tokens
        lanes = [[transfer(batch) for batch in dataset.lane_batches(position, lane)] for lane in own_lanes]
        for name, variant in variants.items():
            dist.barrier()
            began = time.perf_counter()
            variant.train(position, lanes)
            dist.barrier()
            if turn >= 2:  # two warm-up rounds
                seconds[name].append(time.perf_counter() - began)
    if rank == 0:
        table(recipe, seconds)
    bitwise = variants["bitwise"]
    assert isinstance(bitwise, HeadwayTraining)
    checkpoint_cost(recipe, bitwise.state, dataset, statistics.median(seconds["bitwise"]), rank=rank, folder=folder)
    dist.destroy_process_group()


def table(recipe: Recipe, seconds: dict[str, list[float]]) -> None:
    """Print tokens per second and ratios."""
    print(f"{'variant':10} {'tokens/s':>10} {'step ms':>9} {'x plain':>8}   (ratio: median over interleaved rounds)")
    for name, durations in seconds.items():
        ratio = statistics.median(p / t for p, t in zip(seconds["plain"], durations, strict=True))
        median = statistics.median(durations)
        print(f"{name:10} {recipe.train.batch_tokens / median:10,.0f} {median * 1e3:9.1f} {ratio:8.3f}")
    cost = statistics.median(b / f for b, f in zip(seconds["bitwise"], seconds["fast"], strict=True))
    print(f"bitwise costs {100 * (cost - 1):.1f} % over fast")


def checkpoint_cost(recipe: Recipe, state: State, dataset: Dataset, step: float, *, rank: int, folder: str) -> None:
    """Print the cost of a checkpoint for the training thread, at the recipe's interval."""
    run = Run(open_store(folder), "bench")
    ranks = Collectives(dist.new_group(backend="gloo"))

    def claim() -> int:
        run.freeze(recipe)
        return run.claim(this_process("bench"), recipe, dataset.digest).seq

    attempt = ranks.on_rank0(claim)
    about = arithmetic.environment(recipe, torch.device("cpu"))
    lineage = Lineage(attempt, recipes.digest(recipe), dataset.digest, about)
    saver = Saver(run, lineage, ranks, retention=Retention(keep=2), on_commit=lambda *_: None)
    stalls, totals = [], []
    for turn in range(12):
        began = time.perf_counter()
        saver.save(turn, state.tensors(), state.progress(), "")
        stalls.append(time.perf_counter() - began)
        saver.wait()
        totals.append(time.perf_counter() - began)
    if rank:
        return
    tensors = [t.to_local() if hasattr(t, "to_local") else t for t in state.tensors().values()]
    flat = [t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data for t in tensors if t.numel()]
    began = time.perf_counter()
    for part in flat:
        checksum([part])
    hashing = time.perf_counter() - began
    every = recipe.checkpoint.every_tokens or recipe.train.tokens // 10
    wall = every / recipe.train.batch_tokens * step
    size = sum(part.nbytes for part in flat)
    print(f"checkpoint: {size / 2**20:.1f} MiB per rank, every {wall:.2f} s of steps ({every:,} tokens)")
    stall, total = statistics.median(stalls[1:]), statistics.median(totals[1:])
    print(f"  stall of the training thread {stall * 1e3:8.2f} ms  {100 * stall / (wall + stall):6.3f} % of wall clock")
    print(
        f"  checksums                    {hashing * 1e3:8.2f} ms  {100 * hashing / (wall + stall):6.3f} % of wall clock"
    )
    print(f"  save, from start to commit   {total * 1e3:8.2f} ms  (in the background)")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="jobs/recipes/quickstart.yaml")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    recipe = recipes.load(Path(options.recipe), options.overrides)
    build(recipe)
    print(f"{recipe.name}: {options.ranks} ranks, {options.rounds} rounds, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        spawn(measure, (options.ranks, recipe, options.rounds, folder), nprocs=options.ranks)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
