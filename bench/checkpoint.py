"""What a save costs: Headway's beside torch's own (DCP) and s3torchconnector's, to one real S3 server and to a folder.

    python -m bench.checkpoint [--ranks N] [--rounds N] [--store s3|file|both] [--json FILE]
    python -m bench.checkpoint --memory [--saves N]

All variants save the same FSDP2 state from the same processes, in turns, with real training steps before, during and
after each save; every save is read back and must be, bit for bit, the state of the moment at which it was begun. The
batches are synthetic. The S3 server runs on this machine and shares its cores with the training, so what a save adds
to a step holds the server's work, too; what is read back comes from the page cache. Medians over rounds; of the ranks,
the slowest counts.

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
from headway.train import arithmetic
from headway.train.heartbeat import HeartbeatWriter
from headway.train.preemption import Preemption
from headway.train.sharding import build, optimizer
from headway.train.state import State
from headway.train.step import Step, lanes_of
from headway.train.transfer import DeviceBatch, Transfer

CPU = torch.device("cpu")
REGION = "us-east-1"
CALM_STEPS = 4
"""Steps without a save before each save; the first warms up, the others are what a step takes."""
MINUTE = 60.0
GOALS = {"stall": 0.25, "speed": 1.0, "checksums": 0.03, "minute": 0.01}
"""At most 0.25 of DCP async's stall, no slower than s3torchconnector, checksums and one save a minute below a share."""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    recipe: Recipe
    ranks: int
    rounds: int
    stores: list[str]
    names: list[str]
    limits: str
    """For the URL of Headway's store on S3."""
    memory: int
    """Saves over which memory is measured; 0: the variants are compared."""
    folder: str
    bucket: str
    endpoint: str
    port: int

    def place(self, store: str, name: str) -> str:
        """Where a variant writes."""
        return f"{self.bucket}/{name}" if store == "s3" else str(Path(self.folder) / name)


@dataclass
class Sample:
    """One save and the read after it, as one rank saw them [s]."""

    stall: float = 0.0
    """The training thread stood still: in the call, and before the optimizer's step."""
    calm: float = 0.0
    """A step while nothing is saved, median."""
    crowded: float = 0.0
    """A step begun while a save was on its way, median."""
    extra: float = 0.0
    """All such steps took this much longer than calm ones."""
    durable: float = 0.0
    """From the call until the checkpoint counted; 0 on ranks that do not decide that."""
    restore: float = 0.0
    hashing: float = 0.0
    """In Headway's own checksums."""


class Trainer:
    """Trains one model on random tokens."""

    def __init__(self, recipe: Recipe, ranks: Collectives) -> None:
        self.recipe, self.ranks = recipe, ranks
        vocabulary, plan = recipe.data.tokenizer.vocabulary, recipe.train
        model = build(recipe, vocabulary, CPU)
        self.state = State(recipe, model, optimizer(recipe, model, CPU))
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
        """One step; returns the time that it took without the wait for the copy, and that wait."""
        began = time.perf_counter()
        gradient = self.step.gradient(self.lanes, Preemption())
        waiting = time.perf_counter()
        await_copy()
        waited = time.perf_counter() - waiting
        self.step.apply(self.recipe.train.tokens // 2, gradient)
        return time.perf_counter() - began - waited, waited

    def fingerprint(self) -> str:
        """Of this rank's share of the state, bit for bit."""
        digest = xxhash.xxh3_128()
        for tensor in self.state.tensors().values():
            local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            digest.update(local.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def bytes(self) -> int:
        """Of the whole state."""
        return sum(t.numel() * t.element_size() for t in self.state.tensors().values())


class Variant:
    """A way to save; `save` may return before it is done."""

    label = ""

    def __init__(self, place: str, trainer: Trainer) -> None:
        self.place, self.trainer = place, trainer
        self.finished: float | None = None
        """When the last save was durable."""
        self.hashing = 0.0

    def save(self, turn: int) -> None:
        """Begin to save; the state may change when this and `await_copy` have returned."""
        raise NotImplementedError

    def await_copy(self) -> None:
        """Wait until the state may change."""

    @property
    def busy(self) -> bool:
        """Whether a save is on its way, or what follows it."""
        return self.finished is None

    def wait(self) -> None:
        """Wait until the save is done; raises what went wrong with it."""

    def restore(self, turn: int) -> None:
        """Read the state back."""
        raise NotImplementedError

    def tidy(self, turn: int) -> None:
        """Remove what was saved, on rank 0."""

    def close(self) -> None:
        """Let go of threads."""


class _Headway(Variant):
    """Headway's saver."""

    label = "headway"

    def __init__(self, place: str, trainer: Trainer) -> None:
        super().__init__(place, trainer)
        self.run = Run(open_store(place), "bench")
        ranks = Collectives(dist.new_group(backend="gloo"))
        about = arithmetic.environment(trainer.recipe, CPU)

        def claim() -> int:
            self.run.freeze(trainer.recipe)
            return self.run.claim(this_process("bench"), trainer.recipe, "synthetic").seq

        lineage = Lineage(ranks.on_rank0(claim), recipes.digest(trainer.recipe), "synthetic", about)
        self.saver = Saver(self.run, lineage, ranks, retention=Retention(keep=2), announce=self._announce)

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
    def clocked(self) -> Iterator[None]:
        """Add up the time in checksums, and note when the commit is made: rank 0 makes it, and tidies up after it."""
        real = manifest.checksum

        def timed(parts: Sequence[Buffer]) -> str:
            began = time.perf_counter()
            found = real(parts)
            self.hashing += time.perf_counter() - began
            return found

        make_true = CheckpointWriter.commit

        def committed(commit: CheckpointWriter, *reports: Any, **about: Any) -> str:
            key = make_true(commit, *reports, **about)
            self.finished = time.perf_counter()
            return key

        with patch.object(manifest, "checksum", timed), patch.object(CheckpointWriter, "make_true", committed):
            yield

    def _announce(self, _tokens: int, warning: str) -> None:
        if warning:
            raise RuntimeError(warning)


class _Dcp(Variant):
    """torch.distributed.checkpoint, saving while training waits."""

    label = "dcp sync"

    def __init__(self, place: str, trainer: Trainer) -> None:
        super().__init__(place, trainer)
        self.group = dist.new_group(backend="gloo")
        self.client: S3Client | None = None
        self.writer: FileSystemWriter
        if place.startswith("s3://"):
            config = S3ClientConfig(force_path_style=True)
            self.client = S3Client(REGION, endpoint=os.environ["AWS_ENDPOINT_URL"], s3client_config=config)
            self.writer = S3StorageWriter(REGION, place, s3client_config=config)
            self.writer.fs = S3FileSystem(REGION, s3_client=self.client)  # type: ignore[assignment]
        else:
            self.writer = FileSystemWriter(place)

    def save(self, turn: int) -> None:
        save(
            self.trainer.state.tensors(),
            checkpoint_id=self._whole(turn),
            storage_writer=self.writer,
            process_group=self.group,
        )
        self.finished = time.perf_counter()

    def restore(self, turn: int) -> None:
        reader: FileSystemReader
        if self.client:
            constructor = S3ReaderConstructor.dcp_optimized()
            reader = S3StorageReader(REGION, self._whole(turn), reader_constructor=constructor)
            reader.fs = S3FileSystem(REGION, s3_client=self.client, reader_constructor=constructor)
        else:
            reader = FileSystemReader(self._whole(turn))
        load(self.trainer.state.tensors(), storage_reader=reader, process_group=self.group)

    def tidy(self, turn: int) -> None:
        if self.client:
            store = open_store(self.place)
            for key in [*store.list(f"{turn}/")]:
                store.delete(key)
        else:
            shutil.rmtree(self._whole(turn))

    def _whole(self, turn: int) -> str:
        return f"{self.place}/{turn}"


class _DcpAsync(_Dcp):
    """Its asynchronous save in a thread, after a copy into memory that is kept from save to save."""

    label = "dcp async"
    beside = False
    """Whether the copy is taken beside training, too."""

    def __init__(self, place: str, trainer: Trainer) -> None:
        super().__init__(place, trainer)
        # Pinned and shared memory and non-blocking copies need a GPU.
        self.stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False,
                use_shared_memory=False,
                use_async_staging=self.beside,
                use_non_blocking_copy=False,
            )
        )
        self.staging: Any = None
        self.upload: Any = None

    def save(self, turn: int) -> None:
        answer = async_save(
            self.trainer.state.tensors(),
            checkpoint_id=self._whole(turn),
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


class _DcpBeside(_DcpAsync):
    """The same with the copy taken beside training, which waits for it before the optimizer's step."""

    label = "dcp async+"
    beside = True


KINDS: list[type[Variant]] = [_Headway, _Dcp, _DcpAsync, _DcpBeside]


def measure(rank: int, plan: Plan) -> None:
    """One rank's part; rank 0 leaves what was found in the folder."""
    os.environ.update(
        MASTER_ADDR="localhost", MASTER_PORT=str(plan.port), RANK=str(rank), WORLD_SIZE=str(plan.ranks)
    )  # fmt: skip
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    arithmetic.fix(plan.recipe, CPU)
    dist.init_process_group("gloo", rank=rank, world_size=plan.ranks)
    trainer = Trainer(plan.recipe, Collectives(dist.new_group(backend="gloo")))
    kinds = {kind.label: kind for kind in KINDS if kind.label in plan.names}
    variants: dict[tuple[str, str], Variant] = {}
    for store in plan.stores:
        for label, kind in kinds.items():
            place = plan.place(store, label.replace(" ", "-"))
            limits = f"?{plan.limits}" if plan.limits and store == "s3" and kind is _Headway else ""
            variants[store, label] = kind(place + limits, trainer)
    found = over_time(plan, trainer, variants) if plan.memory else compare(plan, trainer, variants)
    if rank == 0:
        found |= {"state_bytes": trainer.bytes, "load": os.getloadavg()}
        (Path(plan.folder) / "found.json").write_text(json.dumps(found), encoding="utf-8")
    for variant in variants.values():
        variant.close()
    dist.destroy_process_group()


def compare(plan: Plan, trainer: Trainer, variants: Mapping[tuple[str, str], Variant]) -> dict[str, Any]:
    """The variants in turns; the first round warms up."""
    samples: dict[tuple[str, str], list[Sample]] = {which: [] for which in variants}
    order = list(variants)
    for turn in range(plan.rounds + 1):
        for which in order[turn % len(order) :] + order[: turn % len(order)]:
            sample = cycle(variants[which], trainer, turn)
            if turn:
                samples[which].append(sample)
    return {
        "variants": [
            {"store": store, "name": label, "samples": [asdict(sample) for sample in samples[store, label]]}
            for store, label in variants
        ]
    }


def cycle(variant: Variant, trainer: Trainer, turn: int) -> Sample:
    """Steps, a save with steps beside it, and a read. Collective."""
    ranks, sample = trainer.ranks, Sample()
    calm = statistics.median([trainer.train()[0] for _ in range(CALM_STEPS)][1:])
    saved, crowded = trainer.fingerprint(), []
    variant.finished, variant.hashing = None, 0.0
    with variant.clocked() if isinstance(variant, _Headway) else nullcontext():
        dist.barrier()
        began = time.perf_counter()
        variant.save(turn)
        stall = time.perf_counter() - began
        while any(ranks.gather(variant.busy)):
            seconds, waited = trainer.train(variant.await_copy)
            stall += waited
            crowded.append(seconds)
        variant.wait()
    sample.stall, sample.calm, sample.durable = stall, calm, (variant.finished or began) - began
    sample.crowded = statistics.median(crowded) if crowded else calm
    sample.extra = sum(crowded) - calm * len(crowded)
    sample.hashing = variant.hashing

    dist.barrier()
    began = time.perf_counter()
    variant.restore(turn)
    sample.restore = time.perf_counter() - began
    if trainer.fingerprint() != saved:
        raise RuntimeError(f"{variant.label}: what was read is not what was saved")
    dist.barrier()
    if ranks.first:
        variant.tidy(turn)
    slowest = [Sample(**each) for each in ranks.gather(asdict(sample))]
    return Sample(**{name: max(getattr(each, name) for each in slowest) for name in asdict(sample)})


def over_time(plan: Plan, trainer: Trainer, variants: Mapping[tuple[str, str], Variant]) -> dict[str, Any]:
    """Resident memory of each rank after each save, and before that as often without saves [bytes]."""
    found: list[dict[str, Any]] = []
    alone: list[list[int]] = []
    for _ in range(plan.memory):
        trainer.train()
        alone.append(trainer.ranks.gather(resident_bytes()))
    found += [
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
            resident.append(trainer.ranks.gather(resident_bytes()))
            if trainer.ranks.first:
                variant.tidy(turn)
        found += [
            {"store": store, "name": label, "rank": rank, "resident": [each[rank] for each in resident]}
            for rank in range(plan.ranks)
        ]
    return {"memory": found}


def resident_bytes() -> int:
    """Resident memory of this process, without pages of files."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Row:
    """What is said of a variant: medians of its samples."""

    store: str
    name: str
    stall: float
    inflation: float
    extra: float
    durable: float
    speed: float
    """To durable [bytes/s]."""
    reading: float
    """[bytes/s]."""
    hashing: float
    """Share of the save."""
    minute: float
    """What a save a minute takes of wall clock."""
    samples: list[Sample] = field(repr=False)

    @classmethod
    def of(cls, store: str, name: str, samples: Sequence[Sample], size: int) -> "Row":
        """From samples of a state of `size` bytes."""

        def middle(figure: Callable[[Sample], float]) -> float:
            return statistics.median(figure(sample) for sample in samples)

        return cls(
            store=store,
            name=name,
            stall=middle(lambda s: s.stall),
            inflation=middle(lambda s: s.crowded / s.calm),
            extra=middle(lambda s: s.extra),
            durable=middle(lambda s: s.durable),
            speed=middle(lambda s: size / s.durable),
            reading=middle(lambda s: size / s.restore),
            hashing=middle(lambda s: s.hashing / s.durable),
            minute=middle(lambda s: (s.stall + s.extra) / MINUTE),
            samples=list(samples),
        )


def goals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Headway's figures against their goals; ratios are medians over rounds of what the same round had of both."""
    found: list[dict[str, Any]] = []

    def say(what: str, value: float, goal: float, *, least: bool = False) -> None:
        found.append({"what": what, "value": value, "goal": goal, "met": value >= goal if least else value <= goal})

    by = {(row.store, row.name): row for row in rows}
    for store in dict.fromkeys(row.store for row in rows):
        mine = by.get((store, _Headway.label))
        if not mine:
            continue
        for name in (_Dcp.label, _DcpAsync.label, _DcpBeside.label):
            if peer := by.get((store, name)):
                pairs = list(zip(mine.samples, peer.samples, strict=True))
                say(f"{store}: stall / {name}", statistics.median(m.stall / p.stall for m, p in pairs), GOALS["stall"])
                ratio = statistics.median(p.durable / m.durable for m, p in pairs)
                say(f"{store}: bytes/s / {name}", ratio, GOALS["speed"], least=True)
                ratio = statistics.median(p.restore / m.restore for m, p in pairs)
                say(f"{store}: restore / {name}, which checks nothing", ratio, GOALS["speed"], least=True)
        say(f"{store}: checksums, share of the save", mine.hashing, GOALS["checksums"])
        say(f"{store}: a save a minute, share of wall clock", mine.minute, GOALS["minute"])
    return found


def table(rows: Sequence[Row], judged: Sequence[dict[str, Any]]) -> None:
    """Print the comparison."""
    calm = statistics.median(sample.calm for row in rows for sample in row.samples)
    print(f"a step without a save takes {calm * 1e3:.0f} ms")
    print(
        f"{'store':5} {'variant':11} {'stall ms':>9} {'step x':>7} {'extra s':>8} {'durable s':>10} {'MB/s':>7} "
        f"{'read MB/s':>10} {'verified':>9} {'hash %':>7} {'save/min %':>10}"
    )
    for row in rows:
        mine = row.name == _Headway.label
        print(
            f"{row.store:5} {row.name:11} {row.stall * 1e3:9.1f} {row.inflation:7.2f} {row.extra:8.3f} "
            f"{row.durable:10.3f} {row.speed / 1e6:7.0f} {row.reading / 1e6:10.0f} {'yes' if mine else 'no':>9} "
            f"{f'{100 * row.hashing:.2f}' if mine else '-':>7} {100 * row.minute:10.2f}"
        )
    print("step x: a step beside a save / a calm one; extra: what all of these took longer; dcp on s3 writes through")
    print("s3torchconnector; dcp async+ takes its copy beside training; dcp has no checksums, so it verifies nothing")
    for each in judged:
        sign = ">=" if each["goal"] == GOALS["speed"] else "<="
        verdict = "met" if each["met"] else "MISSED"
        print(f"  {each['what']:56} {each['value']:8.4f}  goal {sign} {each['goal']:<5} {verdict}")


def memory_table(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print what memory did, and return it."""
    rows = []
    print(
        f"{'store':5} {'variant':11} {'rank':>4} {'saves':>5} {'first 10':>9} {'last 10':>9} {'max':>9} {'KB/save':>9}"
    )
    for each in found:
        taken = each["resident"]
        settled = taken[len(taken) // 10 :]  # the first saves make the rooms that are kept
        slope = statistics.linear_regression(range(len(settled)), settled).slope
        first, last = statistics.median(taken[:10]), statistics.median(taken[-10:])
        rows.append({**each, "first": first, "last": last, "max": max(taken), "slope": slope})
        print(
            f"{each['store']:5} {each['name']:11} {each['rank']:4} {len(taken):5} {first / 1e6:9.1f} {last / 1e6:9.1f} "
            f"{max(taken) / 1e6:9.1f} {slope / 1e3:9.1f}"
        )
    print(
        "MB, resident without pages of files; the slope leaves out the first tenth. One after the other, in this order"
    )
    return rows


def default_recipe(layers: int, width: int) -> Recipe:
    """A small model with a state of some size."""
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
    parser.add_argument("--recipe", type=Path, help="the model and the batch of this one; its data stays unread")
    parser.add_argument("--store", choices=["s3", "file", "both"], default="both")
    parser.add_argument("--variants", nargs="+", choices=[k.label for k in KINDS], help="default: all of them")
    parser.add_argument("--limits", default="", help="for Headway's S3 store, such as connections=8&part_bytes=8388608")
    parser.add_argument("--memory", action="store_true", help="memory over many saves instead")
    parser.add_argument("--saves", type=int, default=100, help="for --memory")
    parser.add_argument("--json", type=Path, help="write what was found to this file, too")
    wanted = parser.parse_args()
    recipe = recipes.load(wanted.recipe) if wanted.recipe else default_recipe(wanted.layers, wanted.width)
    stores = {"both": ["s3", "file"]}.get(wanted.store, [wanted.store])
    names = wanted.variants or [kind.label for kind in KINDS]
    if wanted.memory:
        stores, names = stores[:1], wanted.variants or [_Headway.label]
    with tempfile.TemporaryDirectory() as folder, S3Server(Path(folder)) as server:
        os.environ.update(server.environment)
        plan = Plan(
            recipe=recipe,
            ranks=wanted.ranks,
            rounds=wanted.rounds,
            stores=stores,
            names=names,
            limits=wanted.limits,
            memory=wanted.saves if wanted.memory else 0,
            folder=folder,
            bucket=server.url,
            endpoint=server.endpoint,
            port=_free_port(),
        )
        spawn(measure, (plan,), nprocs=wanted.ranks)  # type: ignore[no-untyped-call]
        found = json.loads((Path(folder) / "found.json").read_text(encoding="utf-8"))
    report(found, wanted)


def report(found: dict[str, Any], wanted: argparse.Namespace) -> None:
    """Print what was found, and write it where it is wanted."""
    size = found["state_bytes"]
    print(
        f"{wanted.ranks} ranks, {size / 1e6:.0f} MB of state ({size / wanted.ranks / 1e6:.0f} a rank), "
        f"{os.cpu_count()} cores, load {found['load'][0]:.1f} at the end, torch {torch.__version__}"
    )
    about = {"ranks": wanted.ranks, "state_bytes": size, "cores": os.cpu_count(), "load": found["load"]}
    document: dict[str, Any] = {**about, "torch": torch.__version__}
    if wanted.memory:
        document["memory"] = memory_table(found["memory"])
    else:
        rows = [
            Row.of(each["store"], each["name"], [Sample(**one) for one in each["samples"]], size)
            for each in found["variants"]
        ]
        judged = goals(rows)
        table(rows, judged)
        document |= {"rounds": wanted.rounds, "variants": [asdict(row) for row in rows], "goals": judged}
    if wanted.json:
        wanted.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
