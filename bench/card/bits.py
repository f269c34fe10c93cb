"""Bitwise equality: runs of `headway train` that must end with equal parameters, all at once on one device."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch
import torch.distributed as dist
import yaml
from torch.distributed.tensor import DTensor
from torch.multiprocessing.spawn import spawn

from bench.card.device import Device
from bench.card.numbers import Row, digest
from headway import recipe as recipes
from headway.data import MicroBatch
from headway.data.build import build
from headway.recipe import Recipe
from headway.train.compute import arithmetic
from headway.train.compute.optimizer import build_optimizer
from headway.train.compute.sharding import build_model
from headway.train.compute.state import State
from headway.train.compute.step import Step, lanes_of
from headway.train.compute.transfer import Transfer
from headway.train.host.preemption import Preemption
from headway.train.host.rank_heartbeat import HeartbeatWriter
from headway.train.trial import random_batches

KILL_AFTER = 6
"""Steps before a run is killed."""
DEADLINE = 240.0
"""Time limit of a training run [s]."""


@dataclass(frozen=True)
class Case:
    """A training run."""

    name: str
    changes: tuple[str, ...] = ()
    killed: bool = False
    fresh: bool = False
    """Whether its compile cache is empty."""


EAGER = (Case("whole"), Case("whole again"), Case("killed and resumed", killed=True))
COMPILED = ("train.compile=true",)
RECOMPUTED = ("train.activation_checkpointing=selective",)
CASES = (
    (*EAGER, *(Case(f"{case.name}, recomputed", RECOMPUTED, case.killed) for case in EAGER[1:])),
    (
        Case("whole, compiled", COMPILED),
        Case("whole again, compiled afresh", COMPILED, fresh=True),
        Case("killed and resumed, compiled", COMPILED, killed=True),
    ),
)
"""Groups with equal results. Compiled code rounds differently from torch's kernels, so it is in its own group."""


def bits(device: Device) -> Iterator[Row]:
    """Compare the fingerprints within each group, and those of one and two ranks."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(Path(folder), device)
        cases = CASES if device.cuda else (EAGER,)
        with ThreadPoolExecutor(16 if device.cuda else 2) as threads:
            results = [[threads.submit(train, recipe, case) for case in group] for group in cases]
            by_ranks = [threads.submit(train_ranks, recipe, device, ranks) for ranks in (1, 2)]
            large = threads.submit(too_large, recipe) if device.cuda else None
            for group, futures in zip(cases, results, strict=True):
                first = futures[0].result()
                for case, each in zip(group, (future.result() for future in futures), strict=True):
                    yield {
                        "name": f"run, {case.name}",
                        "sha256": short(each),
                        "good": is_digest(each) and each == first,
                    }
            one, two = (future.result() for future in by_ranks)
            yield {"name": "one rank", "sha256": short(one), "good": is_digest(one)}
            yield {"name": "two ranks on one card, through the host", "sha256": short(two), "good": two == one}
            if large:
                yield large.result()


def is_digest(digest: str) -> bool:
    """Whether a result is a SHA-256, not an error message."""
    return len(digest) == 64


def short(digest: str) -> str:
    """The first digits of a SHA-256; an error message whole."""
    return digest[:16] if is_digest(digest) else digest


def prepare(folder: Path, device: Device) -> Path:
    """Write a small bf16 recipe with attention inside documents, and build its data from the standard library."""
    small = {"layers": 4, "width": 512, "heads": 8, "kv_heads": 2, "ffn_width": 1024, "attention": "document"}
    tiny = {**small, "layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "ffn_width": 64}
    length = 512 if device.cuda else 64
    document = {
        "name": "bits",
        "data": {
            "path": str(folder / "data"),
            "sources": {"json": {"path": f"{Path(json.__file__).parent}/*.py"}},
            "tokenizer": {"vocabulary": 512},
            "block_tokens": length,
            "document_bytes": 1000,
            "held_out_share": 0.1,
        },
        "model": small if device.cuda else tiny,
        "train": {
            "tokens": 20 * 8 * length, "batch_tokens": 8 * length, "micro_batch_tokens": 2 * length,
            "lanes": 4, "precision": "bf16", "optimizer": {"learning_rate": 3e-3},
        },
        "evaluation": {"tokens": 4 * length},
        "checkpoint": {"every_tokens": 4 * 8 * length},
        "machine": {"device": device.torch.type},
    }  # fmt: skip
    path = folder / "bits.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    build(recipes.load(path))
    return path


def train(recipe: Path, case: Case) -> str:
    """Train `case` to its end; returns the fingerprint, or an error message."""
    name = case.name.replace(" ", "-").replace(",", "")
    store = str(recipe.parent / "store")
    command = [sys.executable, "-m", "headway.cli"]
    training = [
        *command,
        "train",
        str(recipe),
        *case.changes,
        "--run",
        name,
        "--store",
        store,
        "--nproc",
        "1",
        "--json",
    ]
    environment = os.environ | ({"HEADWAY_CACHE": str(recipe.parent / name)} if case.fresh else {})
    if case.killed:
        kill(training, environment)
    done = subprocess.run(training, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode:
        return f"{done.returncode}: {(done.stdout or done.stderr)[-700:]}"
    fingerprint = subprocess.run(
        [*command, "fingerprint", name, "--store", store], capture_output=True, text=True, check=True
    )
    return fingerprint.stdout.strip()


def too_large(recipe: Path) -> Row:
    """Train with a micro-batch that does not fit into memory: it must be refused before the run is claimed."""
    sizes = ("train.micro_batch_tokens=4194304", "train.batch_tokens=16777216", "train.tokens=16777216")
    message = train(recipe, Case("too large", sizes))
    return {
        "name": "a micro-batch that does not fit",
        "said": message,
        "good": message.startswith("2:") and "would fit" in message,
    }


def kill(training: list[str], environment: dict[str, str]) -> None:
    """Start a training run, and kill all its processes after some steps."""
    process = subprocess.Popen(training, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    steps = 0
    for line in process.stderr:
        steps += '"step.done"' in line
        if steps == KILL_AFTER:
            break
    launcher = psutil.Process(process.pid)
    for each in [launcher, *launcher.children(recursive=True)]:
        each.kill()
    process.communicate()


def train_ranks(path: Path, device: Device, ranks: int) -> str:
    """Train with `ranks` processes on one device; returns the digest of the parameters, or an error message."""
    result = path.parent / f"ranks-{ranks}"
    arguments = (ranks, str(path), device.torch.type, str(result))
    code = f"from bench.card.bits import spawn_ranks; spawn_ranks(*{arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False)
    return result.read_text(encoding="utf-8") if result.exists() else done.stderr[-600:]


def spawn_ranks(ranks: int, path: str, kind: str, result: str) -> None:
    """Run `train_rank` on all ranks."""
    spawn(train_rank, (ranks, Path(path), kind, Path(result)), nprocs=ranks)  # type: ignore[no-untyped-call]


@contextmanager
def host_collectives() -> Iterator[None]:
    """Run collectives in host memory: NCCL allows one rank per GPU, and gloo crashes on GPU memory."""

    def staged(collective: Callable[..., Any]) -> Callable[..., None]:
        def run(output: torch.Tensor, *tensors: torch.Tensor, async_op: bool = False, **options: Any) -> None:  # noqa: ARG001 (the copy always waits)
            host = output.cpu()
            collective(host, *(tensor.cpu() for tensor in tensors), **options)
            output.copy_(host)

        return run

    with ExitStack() as patches:
        for name in ("all_gather_into_tensor", "all_to_all_single", "all_reduce"):
            patches.enter_context(patch.object(dist, name, staged(getattr(dist, name))))
        yield


def train_rank(rank: int, ranks: int, path: Path, kind: str, result: Path) -> None:
    """Train some steps as one of `ranks` on one device of a `kind`; rank 0 writes the digest to `result`."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), GLOO_SOCKET_IFNAME="lo")
    device = torch.device(kind, 0) if kind == "cuda" else torch.device(kind)
    recipe = recipes.load(path)
    arithmetic.configure(recipe, device)
    dist.init_process_group("gloo", init_method=f"file://{result}.rendezvous", rank=rank, world_size=ranks)
    vocabulary = recipe.data.tokenizer.vocabulary
    model = build_model(recipe, vocabulary, device)
    state = State(recipe, model, build_optimizer(recipe, model, device))
    step, transfer = Step(recipe, state, device, dist.new_group(backend="gloo"), HeartbeatWriter()), Transfer(device)
    with host_collectives():
        for turn in range(5):
            batches = list(text(recipe, turn, vocabulary))
            lanes = [[transfer(batches[lane])] for lane in lanes_of(rank, ranks, recipe.train.lanes)]
            gradient, _ = step.forward_backward(lanes, Preemption())
            step.apply(turn * recipe.train.batch_tokens, gradient)
    local = [parameter.to_local().cpu() for parameter in model.parameters() if isinstance(parameter, DTensor)]
    pieces: list[Any] = [None] * ranks
    dist.all_gather_object(pieces, local)
    if rank == 0:  # concatenate the rows of all ranks
        result.write_text(digest([torch.cat(shards) for shards in zip(*pieces, strict=True)]), encoding="utf-8")
    dist.destroy_process_group()


def text(recipe: Recipe, turn: int, vocabulary: int) -> Iterator[MicroBatch]:
    """Synthetic micro-batches, one per lane."""
    for lane in range(recipe.train.lanes):
        other = recipe.model_copy(update={"seed": turn * recipe.train.lanes + lane})
        yield [*random_batches(other, vocabulary, recipe.data.block_tokens)][-1]
