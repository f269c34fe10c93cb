"""Duration of `headway submit` and `headway status` for an array of 1,000 runs, on a real SLURM cluster.

    python -m bench.submit [--runs 1000] [--rounds 5]

The run store is a folder, then a real S3 server on this machine. Each command is a new process, including its start-up
from compiled bytecode. Status is measured before any run has started, and when all have: done, running, preempted,
failed, and one in a hundred killed, which is read from its journal. Figures are medians. The time of SLURM's programs
is separate; status waits for them in parallel with its own work, so its own time is the total.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.engines.s3.server import BUCKET, S3Server
from tests.engines.slurm.cluster import Cluster
from tests.memory import MemoryStore
from tests.unit.cli.story import Story, plan, said, steps

from headway import recipe as recipes
from headway.events.training_events import AttemptClaimed, AttemptEnded, StepDone
from headway.reports.summary import SummaryBuilder
from headway.runs import Run
from headway.runs.ledger import LedgerRow

GOAL_SECONDS = 2.0
SHIM = """#!/bin/sh
began=$(date +%s%N)
{program} "$@"
code=$?
echo $(($(date +%s%N) - began)) >> "$SLURM_SECONDS"
exit $code
"""


class Duration(NamedTuple):
    """Duration of a command [s]."""

    total: float
    slurm: float
    """Time in SLURM's programs."""
    processor: float


@dataclass
class Site:
    """A run store, and the environment for commands that use it and SLURM."""

    objects: Path
    """Folder that holds its objects as files."""
    environment: dict[str, str]
    folder: Path

    def time(self, *words: str) -> Duration:
        """Run a command, and return its duration."""
        slurm_log = self.folder / "slurm-seconds"
        slurm_log.unlink(missing_ok=True)
        environment = {**os.environ, **self.environment, "SLURM_SECONDS": str(slurm_log)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode")}
        command = [sys.executable, "-m", "headway.cli", *words]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        assert done.returncode == 0, done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        slurm = sum(int(line) for line in slurm_log.read_text().split()) / 1e9 if slurm_log.exists() else 0.0
        return Duration(seconds, slurm, processor)


def write_run(store: MemoryStore, name: str, number: int) -> None:
    """Write a run that was preempted once and is now in some state, as in reality."""
    now = time.time()
    story = Story(store, name)
    for began, tokens in ((now - 300, 4000), (now - 100, 8000)):
        attempt = story.claim(began)
        builder = SummaryBuilder(Run(store, name), attempt, 10_000)
        story.say(said(AttemptClaimed(ranks=1)), *steps(tokens - 3000, tokens))
        story.commit(began + 60, tokens)
        phases = {"startup": 10.0, "step": 45.0, "checkpoint": 1.0}
        story.ledger(began, began + 56, phases)
        builder.handle(StepDone(loss=3.0, norm=1.0, learning_rate=1e-3, tokens_per_second=500.0))
        builder.record_ledger(
            [LedgerRow(attempt=attempt, rank=0, started=began, until=began + 56, phases=phases, tokens=tokens)]
        )
        outcome = "preempted" if tokens == 4000 else OUTCOMES[number % len(OUTCOMES)]
        if number % 100 == 99 and tokens == 8000:  # killed: it has not recorded an outcome
            story.beat(now - 30, tokens, summary=builder.build())
        elif outcome == "running":
            story.beat(now, tokens, every=3600, summary=builder.build())
        else:
            story.end(began + 65, outcome, tokens)
            builder.handle(AttemptEnded(outcome=outcome, reason="as recorded"))
            story.beat(began + 65, tokens, summary=builder.build())


OUTCOMES = ("done", "done", "done", "running", "running", "running", "preempted", "preempted", "done", "failed")


def shims(folder: Path, environment: dict[str, str]) -> None:
    """Put wrappers before SLURM's programs in PATH that record their durations."""
    folder.mkdir()
    for name in ("sbatch", "scontrol", "scancel"):
        program = shutil.which(name, path=environment["PATH"])
        (folder / name).write_text(SHIM.format(program=program))
        (folder / name).chmod(0o755)
    environment["PATH"] = f"{folder}:{environment['PATH']}"


def measure(site: Site, runs: int, rounds: int, started: MemoryStore) -> dict[str, list[Duration]]:
    """Durations of each command with one store, over the rounds."""
    seeds = "seed=" + ",".join(map(str, range(runs)))
    submit = ("submit", "recipe.yaml", "--sbatch", "hold", "--quiet", "--array")
    site.time(*submit, "seed=1,2", "--name", "warm-up")
    site.time("cancel", "warm-up")
    times: dict[str, list[Duration]] = {}
    for turn in range(rounds):
        array = "started" if turn == 0 else f"array-{turn}"
        times.setdefault("submit", []).append(site.time(*submit, seeds, "--name", array))
        times.setdefault("status, none started", []).append(site.time("status", array))
        if turn:
            site.time("cancel", array)
    for key, data in started.objects.items():
        path = site.objects / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for _ in range(rounds):
        times.setdefault("status, all started", []).append(site.time("status", "started"))
        times.setdefault("runs", []).append(site.time("runs"))
    site.time("cancel", "started")
    return times


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    runs = MemoryStore()
    for number in range(options.runs):
        write_run(runs, f"started.seed-{number}", number)
    title = f"command, {options.runs:,} runs"
    print(f"{'store':<6} {title:<28} {'all s':>6} {'SLURM s':>8} {'own s':>6} {'processor s':>12}")
    for kind in ("file", "s3"):
        with (
            tempfile.TemporaryDirectory() as name,
            S3Server(Path(name) / "s3") as server,
            Cluster(Path(name) / "slurm") as cluster,
        ):
            folder, environment = Path(name), dict(cluster.environment)
            shims(folder / "bin", environment)
            (folder / "recipe.yaml").write_text(recipes.to_yaml(plan(name="array")))
            objects = folder / "files" if kind == "file" else folder / "s3" / "objects" / BUCKET
            environment |= {**server.environment, "HEADWAY_STORE": str(objects) if kind == "file" else server.url}
            times = measure(Site(objects, environment, folder), options.runs, options.rounds, runs)
        for command, durations in times.items():
            total, slurm, processor = (statistics.median(column) for column in zip(*durations, strict=True))
            own = statistics.median(each.total - each.slurm for each in durations) if command == "submit" else total
            verdict = "" if own <= GOAL_SECONDS else f"  above the goal of {GOAL_SECONDS} s"
            print(f"{kind:<6} {command:<28} {total:6.2f} {slurm:8.2f} {own:6.2f} {processor:12.2f}{verdict}")


if __name__ == "__main__":
    main()
