"""Bits: runs that must end with the same parameters, trained by `headway train` itself, at once on the one card."""

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
from headway import data
from headway import recipe as recipes
from headway.data import MicroBatch
from headway.recipe import Recipe
from headway.train import arithmetic
from headway.train.heartbeat import HeartbeatWriter
from headway.train.preemption import Preemption
from headway.train.sharding import build, optimizer
from headway.train.state import State
from headway.train.step import Step, lanes_of
from headway.train.transfer import Transfer
from headway.train.trial import made_up

KILL_AFTER = 6
"""Steps before a run is killed."""
DEADLINE = 240.0
"""How long a training may take [s]."""


@dataclass(frozen=True)
class Case:
    """A training."""

    name: str
    changes: tuple[str, ...] = ()
    killed: bool = False
    fresh: bool = False
    """Whether it finds no compiled code."""


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
"""Groups whose members must be equal. Compiled code rounds otherwise than torch's kernels: the recipe says which."""


def bits(device: Device) -> Iterator[Row]:
    """One fingerprint for each group, and for one and two ranks."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = prepare(Path(folder), device)
        cases = CASES if device.cuda else (EAGER,)
        with ThreadPoolExecutor(16 if device.cuda else 2) as threads:
            found = [[threads.submit(train, recipe, case) for case in group] for group in cases]
            shares = [threads.submit(together, recipe, device, ranks) for ranks in (1, 2)]
            large = threads.submit(too_large, recipe) if device.cuda else None
            for group, futures in zip(cases, found, strict=True):
                first = futures[0].result()
                for case, each in zip(group, (future.result() for future in futures), strict=True):
                    yield {"name": f"run, {case.name}", "sha256": short(each), "good": whole(each) and each == first}
            one, two = (future.result() for future in shares)
            yield {"name": "one rank", "sha256": short(one), "good": whole(one)}
            yield {"name": "two ranks on one card, through the host", "sha256": short(two), "good": two == one}
            if large:
                yield large.result()


def whole(digest: str) -> bool:
    """Whether it is a SHA-256, and not what was said instead."""
    return len(digest) == 64


def short(digest: str) -> str:
    """The beginning of a SHA-256; all of what was said instead."""
    return digest[:16] if whole(digest) else digest


def prepare(folder: Path, device: Device) -> Path:
    """A small recipe of attention inside documents, in bf16, and its data: some of the standard library."""
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
    data.build(recipes.load(path))
    return path


def train(recipe: Path, case: Case) -> str:
    """Train `case` to its end; returns the fingerprint, or what was said instead."""
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
    shown = subprocess.run(
        [*command, "fingerprint", name, "--store", store], capture_output=True, text=True, check=True
    )
    return shown.stdout.strip()


def too_large(recipe: Path) -> Row:
    """A micro-batch that the card cannot hold is refused before the run is claimed, with what would fit."""
    sizes = ("train.micro_batch_tokens=4194304", "train.batch_tokens=16777216", "train.tokens=16777216")
    said = train(recipe, Case("too large", sizes))
    return {
        "name": "a micro-batch that does not fit",
        "said": said,
        "good": said.startswith("2:") and "would fit" in said,
    }


def kill(training: list[str], environment: dict[str, str]) -> None:
    """Begin a training, and kill all its processes after some steps."""
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


def together(path: Path, device: Device, ranks: int) -> str:
    """The digest of what some ranks on the one card come to, or what was said instead."""
    answer = path.parent / f"ranks-{ranks}"
    code = (
        f"from bench.card.bits import spawned; spawned({ranks}, {str(path)!r}, {device.torch.type!r}, {str(answer)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False)
    return answer.read_text(encoding="utf-8") if answer.exists() else done.stderr[-600:]


def spawned(ranks: int, path: str, kind: str, answer: str) -> None:
    """Run `share` on all ranks."""
    spawn(share, (ranks, Path(path), kind, Path(answer)), nprocs=ranks)  # type: ignore[no-untyped-call]


@contextmanager
def through_the_host() -> Iterator[None]:
    """Let collectives go through host memory: NCCL takes one rank a card, and gloo crashes on a card's memory."""

    def staged(collective: Callable[..., Any]) -> Callable[..., None]:
        def run(output: torch.Tensor, *tensors: torch.Tensor, async_op: bool = False, **options: Any) -> None:  # noqa: ARG001 (it waits in any case)
            host = output.cpu()
            collective(host, *(tensor.cpu() for tensor in tensors), **options)
            output.copy_(host)

        return run

    with ExitStack() as patches:
        for name in ("all_gather_into_tensor", "all_to_all_single", "all_reduce"):
            patches.enter_context(patch.object(dist, name, staged(getattr(dist, name))))
        yield


def share(rank: int, ranks: int, path: Path, kind: str, answer: Path) -> None:
    """Train some steps as one of `ranks` on one device of a `kind`; rank 0 writes the digest of all parameters."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), GLOO_SOCKET_IFNAME="lo")
    device = torch.device(kind, 0) if kind == "cuda" else torch.device(kind)
    recipe = recipes.load(path)
    arithmetic.fix(recipe, device)
    dist.init_process_group("gloo", init_method=f"file://{answer}.meeting", rank=rank, world_size=ranks)
    vocabulary = recipe.data.tokenizer.vocabulary
    model = build(recipe, vocabulary, device)
    state = State(recipe, model, optimizer(recipe, model, device))
    step, transfer = Step(recipe, state, device, dist.new_group(backend="gloo"), HeartbeatWriter()), Transfer(device)
    with through_the_host():
        for turn in range(5):
            batches = list(text(recipe, turn, vocabulary))
            lanes = [[transfer(batches[lane])] for lane in lanes_of(rank, ranks, recipe.train.lanes)]
            step.apply(turn * recipe.train.batch_tokens, step.gradient(lanes, Preemption()))
    mine = [parameter.to_local().cpu() for parameter in model.parameters() if isinstance(parameter, DTensor)]
    pieces: list[Any] = [None] * ranks
    dist.all_gather_object(pieces, mine)
    if rank == 0:  # the rows of all ranks, one after the other
        answer.write_text(digest([torch.cat(shards) for shards in zip(*pieces, strict=True)]), encoding="utf-8")
    dist.destroy_process_group()


def text(recipe: Recipe, turn: int, vocabulary: int) -> Iterator[MicroBatch]:
    """Made-up micro-batches, one for each lane."""
    for lane in range(recipe.train.lanes):
        other = recipe.model_copy(update={"seed": turn * recipe.train.lanes + lane})
        yield [*made_up(other, vocabulary, recipe.data.block_tokens)][-1]
