"""Time to restart a run, from `headway train` to its first new step, against a plain torchrun script.

    python -m bench.restart [--ranks 1 2] [--rounds 5] [--cold] [--compile] [KEY=VALUE ...]

Each restart resumes from a checkpoint, is stopped at its first step, and saves. `plain` is a torchrun script that loads
its checkpoint with torch.distributed.checkpoint; it has the same model and data. The variants are interleaved; figures
are medians. `first step` is the time from the start of the process to the end of the first step; `leave` is the time
from the end of the attempt in the journal (for `plain`: from the step) to the exit of the process.

`--cold` adds restarts whose files (Python's packages, data, run) are dropped from the page cache first, as on a new
node; pages that another process maps stay. `--compile` adds restarts with train.compile, with an empty compile cache
and with the cache of the previous restart.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

RECIPE = "jobs/recipes/quickstart.yaml"
QUIET = ("evaluation.every_tokens=1000000000", "checkpoint.every_tokens=1000000000")
"""Overrides: only steps, and the save at the end."""
Stages = dict[str, float]
"""Seconds by stage."""


class Variant:
    """One way to restart, with its own run."""

    def __init__(
        self, name: str, folder: Path, ranks: int, overrides: Iterable[str], *, cold: bool = False, cached: bool = True
    ) -> None:
        """`cold`: drop the page cache first. `cached`: keep the compile cache of the previous restart."""
        self.name, self.folder, self.ranks, self.cold, self.cached = f"{name} {ranks}", folder, ranks, cold, cached
        self.run = self.name.replace(" ", "-").replace(",", "")
        self.overrides = [*overrides]
        self.restarts: list[Stages] = []

    def command(self) -> list[str]:
        """The command of a restart."""
        command = [sys.executable, "-m", "headway.cli", "train", RECIPE, *QUIET, *self.overrides, "--run", self.run]
        return [*command, "--store", str(self.folder / "store"), "--nproc", str(self.ranks)]

    def restart(self) -> Stages:
        """Start, stop at the first step, and time all stages."""
        cache = self.folder / f"cache-{self.run}"
        if not self.cached:
            shutil.rmtree(cache, ignore_errors=True)
        if self.cold:
            drop_from_page_cache([Path(sys.prefix), self.folder])
        cpu_before, began = cpu(), time.time()
        process = subprocess.Popen(
            self.command(), stderr=subprocess.PIPE, text=True, env={**os.environ, "HEADWAY_CACHE": str(cache)}
        )
        assert process.stderr
        stages: Stages = {}
        ended = began
        for line in process.stderr:
            event = json.loads(line) if line.startswith("{") else {}
            match event.get("event"):
                case "attempt.started":
                    stages = {key: value for key, value in event.items() if isinstance(value, float)}
                    stages["first step"] = event_time(event) - began
                    process.send_signal(signal.SIGTERM)
                case "attempt.ended":
                    ended = event_time(event)
        if process.wait() != 75 or not stages:
            sys.exit(f"{self.name} exited with {process.returncode}")
        return stages | {"leave": time.time() - ended, "cpu": cpu() - cpu_before}


class PlainScript(Variant):
    """A plain script under torchrun."""

    def command(self) -> list[str]:
        """The command of a restart."""
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.ranks)]
        return [*command, "-m", "bench.restart", *self.overrides, "--plain", str(self.folder / self.run)]

    def restart(self) -> Stages:
        """Start, stop at the first step, and time all stages."""
        cpu_before, began = cpu(), time.time()
        done = subprocess.run(self.command(), capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{self.name} exited with {done.returncode}: {done.stderr}")
        times = {key: value - began for key, value in json.loads(done.stdout.splitlines()[-1]).items()}
        return {
            "first step": times["stepped"],
            "leave": time.time() - began - times["stepped"],
            "cpu": cpu() - cpu_before,
        }


def plain_script(folder: Path, overrides: list[str]) -> None:
    """The plain script: model, data, checkpoint, one step. Runs under torchrun."""
    import torch
    import torch.distributed as dist
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save
    from torch.distributed.fsdp import fully_shard

    from headway import recipe as recipes
    from headway.data import open_data
    from headway.model import ARCHITECTURES, initialize

    recipe = recipes.load(Path(RECIPE), overrides)
    torch.set_num_threads(recipe.train.threads)
    dist.init_process_group("gloo")
    dataset = open_data(recipe)
    architecture = ARCHITECTURES[recipe.model.kind]
    model = architecture.on_meta(recipe.model, dataset.vocabulary, recipe.train.loss_chunk_tokens)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    model.to_empty(device="cpu")
    initialize(model, recipe.seed)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    if folder.exists():
        parameters, moments = get_state_dict(model, adam)
        load({"model": parameters, "optimizer": moments}, checkpoint_id=folder)
        set_state_dict(model, adam, model_state_dict=parameters, optim_state_dict=moments)
    for lane in range(dist.get_rank(), recipe.train.lanes, dist.get_world_size()):
        for batch in dataset.lane_batches(0, lane):
            model(torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets), None).backward()
    adam.step()
    stepped = time.time()
    if not folder.exists():
        parameters, moments = get_state_dict(model, adam)
        save({"model": parameters, "optimizer": moments}, checkpoint_id=folder)
    if dist.get_rank() == 0:
        print(json.dumps({"stepped": stepped}), flush=True)
    dist.destroy_process_group()


def event_time(event: dict[str, str]) -> float:
    """Time of a log event [s since 1970]."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def cpu() -> float:
    """CPU time of all finished child processes [s]."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def drop_from_page_cache(folders: Iterable[Path]) -> None:
    """Drop the files in `folders` from the page cache."""
    os.sync()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                file = os.open(path, os.O_RDONLY)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


def table(variants: list[Variant]) -> None:
    """Print the median of every stage, and ratios."""
    stages = list(dict.fromkeys(stage for variant in variants for stage in variant.restarts[0]))
    last = [stage for stage in ("total", "first step", "leave", "cpu") if stage in stages]
    print(f"{'s':12}" + "".join(f"{variant.name:>24}" for variant in variants))
    for stage in [*(stage for stage in stages if stage not in last), *last]:
        cells = (
            f"{statistics.median(restart[stage] for restart in variant.restarts):.2f}"
            if stage in variant.restarts[0]
            else ""
            for variant in variants
        )
        print(f"{stage:12}" + "".join(f"{cell:>24}" for cell in cells))
    for own in variants:
        peers = [peer for peer in variants if isinstance(peer, PlainScript) and peer.ranks == own.ranks]
        for peer in peers if not isinstance(own, PlainScript) and not own.cold and "compile" not in own.name else []:
            pairs = list(zip(peer.restarts, own.restarts, strict=True))
            first = statistics.median(p["first step"] / m["first step"] for p, m in pairs)
            leave = statistics.median(p["leave"] / m["leave"] for p, m in pairs)
            print(f"{peer.name} / {own.name}: first step {first:.2f}, leave {leave:.2f} (medians over the rounds)")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.plain:
        plain_script(options.plain, options.overrides)
        return

    from headway import recipe as recipes
    from headway.data.build import build

    with tempfile.TemporaryDirectory() as name:
        folder, overrides = Path(name), [*options.overrides, f"data.path={name}/data"]
        build(recipes.load(Path(RECIPE), overrides))
        variants: list[Variant] = []
        for ranks in options.ranks:
            variants.append(Variant("headway", folder, ranks, overrides))
            variants.append(PlainScript("plain", folder, ranks, overrides))
            if options.cold:
                variants.append(Variant("headway, cold", folder, ranks, overrides, cold=True))
            if options.compile:
                compiled = [*overrides, "train.compile=true"]
                variants.append(Variant("compile, empty", folder, ranks, compiled, cached=False))
                variants.append(Variant("compile, cached", folder, ranks, compiled))
        for turn in range(options.rounds + 1):
            for variant in variants:
                stages = variant.restart()
                if turn:  # the first one starts the run
                    variant.restarts.append(stages)
        table(variants)


if __name__ == "__main__":
    main()
