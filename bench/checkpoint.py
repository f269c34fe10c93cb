"""The cost of a save: Headway against torch's DCP and s3torchconnector, to a real S3 server and to a folder.

    python -m bench.checkpoint [--ranks N] [--rounds N] [--store s3|file|both] [--json FILE]
    python -m bench.checkpoint --memory [--saves N]

All variants save the same FSDP2 state from the same processes, interleaved, with real training steps before, during and
after each save. Each save is read back and must equal, bit for bit, the state at its start. The batches are synthetic.
The S3 server shares the cores of this machine with training, so the extra time of a step includes the server's work;
reads come from the page cache. Figures are medians over rounds, of the slowest rank.

`--memory` measures the resident memory of the ranks over many saves.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist
import xxhash
from s3torchconnector import S3ClientConfig
from s3torchconnector._s3client import S3Client  # the public classes take no endpoint
from s3torchconnector.dcp import S3StorageReader, S3StorageWriter
from s3torchconnector.dcp.s3_file_system import S3FileSystem
from s3torchconnector.s3reader import S3ReaderConstructor
from tests.engines.s3.server import S3Server, _free_port
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse, async_save, save
from torch.multiprocessing.spawn import spawn

from headway import recipe as recipes
from headway.checkpoint import manifest
from headway.checkpoint.collectives import Collectives
from headway.checkpoint.commit import CheckpointWriter, Lineage
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.retention import Retention
from headway.checkpoint.saver import Saver
from headway.data import MicroBatch
from headway.objectstore import Buffer, open_store
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

CPU = torch.device("cpu")
REGION = "us-east-1"
STEPS_ALONE = 4
"""Steps without a save before each save; the first one warms up, the others are timed."""
MINUTE = 60.0
GOALS = {"stall": 0.25, "speed": 1.0, "checksums": 0.03, "minute": 0.01}
"""Stall relative to DCP async, speed relative to s3torchconnector, shares of checksums and of one save per minute."""


@dataclass(frozen=True)
class Plan:
    """The settings of the benchmark."""

    recipe: Recipe
    ranks: int
    rounds: int
    stores: list[str]
    names: list[str]
    limits: str
    """Query parameters of the URL of Headway's S3 store."""
    memory: int
    """Number of saves to measure memory over; 0: compare the variants instead."""
    folder: str
    bucket: str
    endpoint: str
    port: int

    def location(self, store: str, name: str) -> str:
        """URL or folder that a variant writes to."""
        return f"{self.bucket}/{name}" if store == "s3" else str(Path(self.folder) / name)


@dataclass
class Sample:
    """One save and the read after it, timed on one rank [s]."""

    stall: float = 0.0
    """Time that the training thread was blocked: in the call, and before the optimizer's step."""
    step_alone: float = 0.0
    """Duration of a step without a save, median."""
    step_beside: float = 0.0
    """Duration of a step started during a save, median."""
    extra: float = 0.0
    """Additional time of all steps during the save."""
    durable: float = 0.0
    """Time from the call until the checkpoint was committed; 0 on ranks that do not commit."""
    restore: float = 0.0
    hashing: float = 0.0
    """Time in Headway's checksums."""


class Trainer:
    """Trains one model on random tokens."""

    def __init__(self, recipe: Recipe, ranks: Collectives) -> None:
        self.recipe, self.ranks = recipe, ranks
        vocabulary, plan = recipe.data.tokenizer.vocabulary, recipe.train
        model = build_model(recipe, vocabulary, CPU)
        self.state = State(recipe, model, build_optimizer(recipe, model, CPU))
        self.step = Step(recipe, self.state, CPU, ranks.group, HeartbeatWriter())
        random, transfer = np.random.default_rng(ranks.rank), Transfer(CPU)
        shape = (plan.micro_batch_tokens // recipe.data.block_tokens, recipe.data.block_tokens)

        def batch() -> DeviceBatch:
            inputs, targets = random.integers(0, vocabulary, (2, *shape))
            return transfer(MicroBatch(inputs, targets, None))

        self.lanes = [
            [batch() for _ in range(plan.lane_micro_batches)] for _ in lanes_of(ranks.rank, ranks.size, plan.lanes)
        ]

    def train(self, await_copy: Callable[[], None] = lambda: None) -> tuple[float, float]:
        """One step; returns its duration without the wait for the copy, and the wait [s]."""
        began = time.perf_counter()
        gradient, _ = self.step.forward_backward(self.lanes, Preemption())
        wait_started = time.perf_counter()
        await_copy()
        wait = time.perf_counter() - wait_started
        self.step.apply(self.recipe.train.tokens // 2, gradient)
        return time.perf_counter() - began - wait, wait

    def fingerprint(self) -> str:
        """Hash of this rank's shard of the state, bit for bit."""
        digest = xxhash.xxh3_128()
        for tensor in self.state.tensors().values():
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            digest.update(local.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the whole state [bytes]."""
        return sum(t.numel() * t.element_size() for t in self.state.tensors().values())


class Variant:
    """A way to save. `save` may return before the save is durable."""

    label = ""

    def __init__(self, location: str, trainer: Trainer) -> None:
        self.location, self.trainer = location, trainer
        self.finished: float | None = None
        """Time at which the last save became durable."""
        self.hashing = 0.0

    def save(self, turn: int) -> None:
        """Start a save. The state may change once this and `await_copy` have returned."""
        raise NotImplementedError

    def await_copy(self) -> None:
        """Wait until the state may change."""

    @property
    def busy(self) -> bool:
        """Whether a save or its clean-up is running."""
        return self.finished is None

    def wait(self) -> None:
        """Wait until the save is done; raises its error."""

    def restore(self, turn: int) -> None:
        """Read the state back."""
        raise NotImplementedError

    def delete(self, turn: int) -> None:
        """Delete the save, on rank 0."""

    def close(self) -> None:
        """Stop the threads."""


class _Headway(Variant):
    """Headway's saver."""

    label = "headway"

    def __init__(self, location: str, trainer: Trainer) -> None:
        super().__init__(location, trainer)
        self.run = Run(open_store(location), "bench")
        ranks = Collectives(dist.new_group(backend="gloo"))
        about = arithmetic.environment(trainer.recipe, CPU)

        def claim() -> int:
            self.run.freeze(trainer.recipe)
            return self.run.claim(this_process("bench"), trainer.recipe, "synthetic").seq

        lineage = Lineage(ranks.on_rank0(claim), recipes.digest(trainer.recipe), "synthetic", about)
        self.saver = Saver(self.run, lineage, ranks, retention=Retention(keep=2), on_commit=self._announce)

    def save(self, turn: int) -> None:
        state = self.trainer.state
        self.saver.save(turn, state.tensors(), state.progress(), "")

    def await_copy(self) -> None:
        self.saver.await_copy()

    @property
    def busy(self) -> bool:
        return self.saver.busy

    def wait(self) -> None:
        self.saver.wait()

    def restore(self, turn: int) -> None:
        commit = self.run.history().commits[-1]
        assert commit.tokens == turn
        self.trainer.state.load(StoredCheckpoint(self.run.store, commit))

    def close(self) -> None:
        self.saver.close()

    @contextmanager
    def timers(self) -> Iterator[None]:
        """Time the checksums and the commit, which rank 0 makes before its clean-up."""
        checksum = manifest.checksum

        def timed_checksum(parts: Sequence[Buffer]) -> str:
            began = time.perf_counter()
            digest = checksum(parts)
            self.hashing += time.perf_counter() - began
            return digest

        commit = CheckpointWriter.commit

        def timed_commit(writer: CheckpointWriter, *reports: Any, **about: Any) -> str:
            key = commit(writer, *reports, **about)
            self.finished = time.perf_counter()
            return key

        with patch.object(manifest, "checksum", timed_checksum), patch.object(CheckpointWriter, "commit", timed_commit):
            yield

    def _announce(self, _tokens: int, warning: str) -> None:
        if warning:
            raise RuntimeError(warning)


class _Dcp(Variant):
    """torch.distributed.checkpoint, synchronous."""

    label = "dcp sync"

    def __init__(self, location: str, trainer: Trainer) -> None:
        super().__init__(location, trainer)
        self.group = dist.new_group(backend="gloo")
        self.client: S3Client | None = None
        self.writer: FileSystemWriter
        if location.startswith("s3://"):
            config = S3ClientConfig(force_path_style=True)
            self.client = S3Client(REGION, endpoint=os.environ["AWS_ENDPOINT_URL"], s3client_config=config)
            self.writer = S3StorageWriter(REGION, location, s3client_config=config)
            self.writer.fs = S3FileSystem(REGION, s3_client=self.client)  # type: ignore[assignment]
        else:
            self.writer = FileSystemWriter(location)

    def save(self, turn: int) -> None:
        save(
            self.trainer.state.tensors(),
            checkpoint_id=self._path(turn),
            storage_writer=self.writer,
            process_group=self.group,
        )
        self.finished = time.perf_counter()

    def restore(self, turn: int) -> None:
        reader: FileSystemReader
        if self.client:
            constructor = S3ReaderConstructor.dcp_optimized()
            reader = S3StorageReader(REGION, self._path(turn), reader_constructor=constructor)
            reader.fs = S3FileSystem(REGION, s3_client=self.client, reader_constructor=constructor)
        else:
            reader = FileSystemReader(self._path(turn))
        load(self.trainer.state.tensors(), storage_reader=reader, process_group=self.group)

    def delete(self, turn: int) -> None:
        if self.client:
            store = open_store(self.location)
            for key in [*store.list(f"{turn}/")]:
                store.delete(key)
        else:
            shutil.rmtree(self._path(turn))

    def _path(self, turn: int) -> str:
        return f"{self.location}/{turn}"


class _DcpAsync(_Dcp):
    """DCP's asynchronous save in a thread, after a copy into memory that saves reuse."""

    label = "dcp async"
    async_copy = False
    """Whether the copy is asynchronous too."""

    def __init__(self, location: str, trainer: Trainer) -> None:
        super().__init__(location, trainer)
        # Pinned and shared memory and non-blocking copies need a GPU.
        self.stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False,
                use_shared_memory=False,
                use_async_staging=self.async_copy,
                use_non_blocking_copy=False,
            )
        )
        self.staging: Any = None
        self.upload: Any = None

    def save(self, turn: int) -> None:
        answer = async_save(
            self.trainer.state.tensors(),
            checkpoint_id=self._path(turn),
            storage_writer=self.writer,
            process_group=self.group,
            async_stager=self.stager,
        )
        if isinstance(answer, AsyncSaveResponse):
            self.staging, self.upload = answer.staging_completion, answer.upload_completion
        else:
            self.upload = answer
        self.upload.add_done_callback(self._done)

    def await_copy(self) -> None:
        if self.staging:
            self.staging.result()

    def wait(self) -> None:
        self.upload.result()

    def close(self) -> None:
        self.stager.close()

    def _done(self, _upload: Any) -> None:
        self.finished = time.perf_counter()


class _DcpAsyncCopy(_DcpAsync):
    """DCP's asynchronous save with an asynchronous copy; training waits for it before the optimizer's step."""

    label = "dcp async+"
    async_copy = True


KINDS: list[type[Variant]] = [_Headway, _Dcp, _DcpAsync, _DcpAsyncCopy]


def measure(rank: int, plan: Plan) -> None:
    """Measure on one rank; rank 0 writes the results to the folder."""
    os.environ.update(
        MASTER_ADDR="localhost", MASTER_PORT=str(plan.port), RANK=str(rank), WORLD_SIZE=str(plan.ranks)
    )  # fmt: skip
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    arithmetic.configure(plan.recipe, CPU)
    dist.init_process_group("gloo", rank=rank, world_size=plan.ranks)
    trainer = Trainer(plan.recipe, Collectives(dist.new_group(backend="gloo")))
    kinds = {kind.label: kind for kind in KINDS if kind.label in plan.names}
    variants: dict[tuple[str, str], Variant] = {}
    for store in plan.stores:
        for label, kind in kinds.items():
            location = plan.location(store, label.replace(" ", "-"))
            limits = f"?{plan.limits}" if plan.limits and store == "s3" and kind is _Headway else ""
            variants[store, label] = kind(location + limits, trainer)
    results = memory_over_time(plan, trainer, variants) if plan.memory else compare(plan, trainer, variants)
    if rank == 0:
        results |= {"state_bytes": trainer.bytes, "load": os.getloadavg()}
        (Path(plan.folder) / "results.json").write_text(json.dumps(results), encoding="utf-8")
    for variant in variants.values():
        variant.close()
    dist.destroy_process_group()


def compare(plan: Plan, trainer: Trainer, variants: Mapping[tuple[str, str], Variant]) -> dict[str, Any]:
    """Measure the variants, interleaved; the first round warms up."""
    samples: dict[tuple[str, str], list[Sample]] = {key: [] for key in variants}
    order = list(variants)
    for turn in range(plan.rounds + 1):
        for key in order[turn % len(order) :] + order[: turn % len(order)]:
            sample = cycle(variants[key], trainer, turn)
            if turn:
                samples[key].append(sample)
    return {
        "variants": [
            {"store": store, "name": label, "samples": [asdict(sample) for sample in samples[store, label]]}
            for store, label in variants
        ]
    }


def cycle(variant: Variant, trainer: Trainer, turn: int) -> Sample:
    """Steps, a save with concurrent steps, and a read. Collective."""
    ranks, sample = trainer.ranks, Sample()
    step_alone = statistics.median([trainer.train()[0] for _ in range(STEPS_ALONE)][1:])
    saved, steps = trainer.fingerprint(), []
    variant.finished, variant.hashing = None, 0.0
    with variant.timers() if isinstance(variant, _Headway) else nullcontext():
        dist.barrier()
        began = time.perf_counter()
        variant.save(turn)
        stall = time.perf_counter() - began
        while any(ranks.all_gather(variant.busy)):
            seconds, wait = trainer.train(variant.await_copy)
            stall += wait
            steps.append(seconds)
        variant.wait()
    sample.stall, sample.step_alone, sample.durable = stall, step_alone, (variant.finished or began) - began
    sample.step_beside = statistics.median(steps) if steps else step_alone
    sample.extra = sum(steps) - step_alone * len(steps)
    sample.hashing = variant.hashing

    dist.barrier()
    began = time.perf_counter()
    variant.restore(turn)
    sample.restore = time.perf_counter() - began
    if trainer.fingerprint() != saved:
        raise RuntimeError(f"{variant.label}: the restored state differs from the saved one")
    dist.barrier()
    if ranks.is_rank0:
        variant.delete(turn)
    slowest = [Sample(**each) for each in ranks.all_gather(asdict(sample))]
    return Sample(**{name: max(getattr(each, name) for each in slowest) for name in asdict(sample)})


def memory_over_time(plan: Plan, trainer: Trainer, variants: Mapping[tuple[str, str], Variant]) -> dict[str, Any]:
    """Resident memory of each rank after each save, and after as many steps without saves [bytes]."""
    rows: list[dict[str, Any]] = []
    alone: list[list[int]] = []
    for _ in range(plan.memory):
        trainer.train()
        alone.append(trainer.ranks.all_gather(resident_bytes()))
    rows += [
        {"store": "-", "name": "no saves", "rank": rank, "resident": [each[rank] for each in alone]}
        for rank in range(plan.ranks)
    ]
    for (store, label), variant in variants.items():
        resident: list[list[int]] = []
        for turn in range(plan.memory):
            variant.finished = None
            variant.save(turn)
            trainer.train(variant.await_copy)
            variant.wait()
            resident.append(trainer.ranks.all_gather(resident_bytes()))
            if trainer.ranks.is_rank0:
                variant.delete(turn)
        rows += [
            {"store": store, "name": label, "rank": rank, "resident": [each[rank] for each in resident]}
            for rank in range(plan.ranks)
        ]
    return {"memory": rows}


def resident_bytes() -> int:
    """Resident memory of this process without file pages [bytes]."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Row:
    """A row of the table: medians of a variant's samples."""

    store: str
    name: str
    stall: float
    inflation: float
    extra: float
    durable: float
    speed: float
    """Speed of the save until it is durable [bytes/s]."""
    reading: float
    """Speed of the restore [bytes/s]."""
    hashing: float
    """Share of checksums in the save."""
    minute: float
    """Share of wall-clock time that one save per minute takes."""
    samples: list[Sample] = field(repr=False)

    @classmethod
    def of(cls, store: str, name: str, samples: Sequence[Sample], size: int) -> "Row":
        """A row from samples of a state of `size` bytes."""

        def median(figure: Callable[[Sample], float]) -> float:
            return statistics.median(figure(sample) for sample in samples)

        return cls(
            store=store,
            name=name,
            stall=median(lambda s: s.stall),
            inflation=median(lambda s: s.step_beside / s.step_alone),
            extra=median(lambda s: s.extra),
            durable=median(lambda s: s.durable),
            speed=median(lambda s: size / s.durable),
            reading=median(lambda s: size / s.restore),
            hashing=median(lambda s: s.hashing / s.durable),
            minute=median(lambda s: (s.stall + s.extra) / MINUTE),
            samples=list(samples),
        )


def goals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Headway's figures and their goals; ratios are medians over rounds of the ratio within a round."""
    results: list[dict[str, Any]] = []

    def add(what: str, value: float, goal: float, *, least: bool = False) -> None:
        results.append({"what": what, "value": value, "goal": goal, "met": value >= goal if least else value <= goal})

    by = {(row.store, row.name): row for row in rows}
    for store in dict.fromkeys(row.store for row in rows):
        own = by.get((store, _Headway.label))
        if not own:
            continue
        for name in (_Dcp.label, _DcpAsync.label, _DcpAsyncCopy.label):
            if peer := by.get((store, name)):
                pairs = list(zip(own.samples, peer.samples, strict=True))
                add(f"{store}: stall / {name}", statistics.median(m.stall / p.stall for m, p in pairs), GOALS["stall"])
                ratio = statistics.median(p.durable / m.durable for m, p in pairs)
                add(f"{store}: bytes/s / {name}", ratio, GOALS["speed"], least=True)
                ratio = statistics.median(p.restore / m.restore for m, p in pairs)
                add(f"{store}: restore / {name}, which verifies nothing", ratio, GOALS["speed"], least=True)
        add(f"{store}: checksums, share of the save", own.hashing, GOALS["checksums"])
        add(f"{store}: one save per minute, share of wall clock", own.minute, GOALS["minute"])
    return results


def table(rows: Sequence[Row], goal_results: Sequence[dict[str, Any]]) -> None:
    """Print the comparison."""
    step = statistics.median(sample.step_alone for row in rows for sample in row.samples)
    print(f"a step without a save takes {step * 1e3:.0f} ms")
    print(
        f"{'store':5} {'variant':11} {'stall ms':>9} {'step x':>7} {'extra s':>8} {'durable s':>10} {'MB/s':>7} "
        f"{'read MB/s':>10} {'verified':>9} {'hash %':>7} {'save/min %':>10}"
    )
    for row in rows:
        headway = row.name == _Headway.label
        print(
            f"{row.store:5} {row.name:11} {row.stall * 1e3:9.1f} {row.inflation:7.2f} {row.extra:8.3f} "
            f"{row.durable:10.3f} {row.speed / 1e6:7.0f} {row.reading / 1e6:10.0f} {'yes' if headway else 'no':>9} "
            f"{f'{100 * row.hashing:.2f}' if headway else '-':>7} {100 * row.minute:10.2f}"
        )
    print(
        "step x: step during a save / step without; extra: additional time of all steps during a save; dcp on s3 uses"
    )
    print("s3torchconnector; dcp async+ copies asynchronously; dcp has no checksums, so it verifies nothing")
    for each in goal_results:
        sign = ">=" if each["goal"] == GOALS["speed"] else "<="
        verdict = "met" if each["met"] else "MISSED"
        print(f"  {each['what']:56} {each['value']:8.4f}  goal {sign} {each['goal']:<5} {verdict}")


def memory_table(series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print a summary of the memory series, and return it."""
    rows = []
    print(
        f"{'store':5} {'variant':11} {'rank':>4} {'saves':>5} {'first 10':>9} {'last 10':>9} {'max':>9} {'KB/save':>9}"
    )
    for each in series:
        resident = each["resident"]
        steady = resident[len(resident) // 10 :]  # the first saves allocate buffers that later ones reuse
        slope = statistics.linear_regression(range(len(steady)), steady).slope
        first, last = statistics.median(resident[:10]), statistics.median(resident[-10:])
        rows.append({**each, "first": first, "last": last, "max": max(resident), "slope": slope})
        print(
            f"{each['store']:5} {each['name']:11} {each['rank']:4} {len(resident):5} {first / 1e6:9.1f} "
            f"{last / 1e6:9.1f} {max(resident) / 1e6:9.1f} {slope / 1e3:9.1f}"
        )
    print("MB, resident memory without file pages; the slope leaves out the first tenth. Measured in this order")
    return rows


def default_recipe(layers: int, width: int) -> Recipe:
    """A recipe of a small model; its layers and width decide the size of the state."""
    document = {
        "name": "bench-checkpoint",
        "data": {"tokenizer": {"vocabulary": 1024}, "block_tokens": 64},
        "model": {
            "layers": layers,
            "width": width,
            "heads": width // 64,
            "kv_heads": width // 64,
            "ffn_width": 8 * width // 3 // 32 * 32,
        },
        "train": {"tokens": 1 << 20, "batch_tokens": 256, "micro_batch_tokens": 64, "lanes": 4},
    }
    return Recipe.model_validate_json(json.dumps(document))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384, help="a multiple of 64")
    parser.add_argument("--recipe", type=Path, help="recipe of the model and the batch; its data is not read")
    parser.add_argument("--store", choices=["s3", "file", "both"], default="both")
    parser.add_argument("--variants", nargs="+", choices=[k.label for k in KINDS], help="default: all")
    parser.add_argument(
        "--limits", default="", help="URL parameters of Headway's S3 store, such as connections=8&part_bytes=8388608"
    )
    parser.add_argument("--memory", action="store_true", help="measure memory over many saves instead")
    parser.add_argument("--saves", type=int, default=100, help="number of saves for --memory")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    recipe = recipes.load(options.recipe) if options.recipe else default_recipe(options.layers, options.width)
    stores = {"both": ["s3", "file"]}.get(options.store, [options.store])
    names = options.variants or [kind.label for kind in KINDS]
    if options.memory:
        stores, names = stores[:1], options.variants or [_Headway.label]
    with tempfile.TemporaryDirectory() as folder, S3Server(Path(folder)) as server:
        os.environ.update(server.environment)
        plan = Plan(
            recipe=recipe,
            ranks=options.ranks,
            rounds=options.rounds,
            stores=stores,
            names=names,
            limits=options.limits,
            memory=options.saves if options.memory else 0,
            folder=folder,
            bucket=server.url,
            endpoint=server.endpoint,
            port=_free_port(),
        )
        spawn(measure, (plan,), nprocs=options.ranks)  # type: ignore[no-untyped-call]
        results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
    report(results, options)


def report(results: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the results, and write them to the file in the options."""
    size = results["state_bytes"]
    print(
        f"{options.ranks} ranks, {size / 1e6:.0f} MB of state ({size / options.ranks / 1e6:.0f} per rank), "
        f"{os.cpu_count()} cores, load {results['load'][0]:.1f} at the end, torch {torch.__version__}"
    )
    about = {"ranks": options.ranks, "state_bytes": size, "cores": os.cpu_count(), "load": results["load"]}
    document: dict[str, Any] = {**about, "torch": torch.__version__}
    if options.memory:
        document["memory"] = memory_table(results["memory"])
    else:
        rows = [
            Row.of(each["store"], each["name"], [Sample(**one) for one in each["samples"]], size)
            for each in results["variants"]
        ]
        goal_results = goals(rows)
        table(rows, goal_results)
        document |= {"rounds": options.rounds, "variants": [asdict(row) for row in rows], "goals": goal_results}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
