"""How long `headway submit` and `headway status` take for an array of 1,000 runs, on a real SLURM cluster.

    python -m bench.submit [--runs 1000] [--rounds 5]

Run store in a folder and on a real S3 server, on this machine; every command is a process of its own, start-up
included (of compiled bytecode, as pip leaves it). Status twice: before any run has begun, and when all have: done,
running, preempted, failed, and one in a hundred killed, which is read from its journal. Medians. What SLURM's programs
take is shown apart; status waits for them beside its own work, so its own time is all of it.
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
from tests.unit.cli.story import Story, plan, steps

from headway import recipe as recipes
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


class Taken(NamedTuple):
    """Seconds that a command took."""

    whole: float
    slurm: float
    """While programs of SLURM ran."""
    processor: float


@dataclass
class Place:
    """A run store, and the environment in which commands find it and SLURM."""

    objects: Path
    """The folder that its objects are files of."""
    environment: dict[str, str]
    folder: Path

    def time(self, *words: str) -> Taken:
        """How long a command takes."""
        taken = self.folder / "slurm-seconds"
        taken.unlink(missing_ok=True)
        environment = {**os.environ, **self.environment, "SLURM_SECONDS": str(taken)}
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode")}
        command = [sys.executable, "-m", "headway.cli", *words]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        assert done.returncode == 0, done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        slurm = sum(int(line) for line in taken.read_text().split()) / 1e9 if taken.exists() else 0.0
        return Taken(seconds, slurm, processor)


def tell(store: MemoryStore, name: str, number: int) -> None:
    """A run as it would have happened: preempted once, and now in one state or another."""
    now = time.time()
    story = Story(store, name)
    for began, tokens in ((now - 300, 4000), (now - 100, 8000)):
        attempt = story.claim(began)
        tally = SummaryBuilder(Run(store, name), attempt, 10_000)
        story.say({"event": "attempt.claimed", "ranks": 1}, *steps(tokens - 3000, tokens))
        story.commit(began + 60, tokens)
        phases = {"startup": 10.0, "step": 45.0, "checkpoint": 1.0}
        story.ledger(began, began + 56, phases)
        tally.take("step.done", {"loss": 3.0})
        tally.book([LedgerRow(attempt=attempt, rank=0, started=began, until=began + 56, phases=phases, tokens=tokens)])
        outcome = "preempted" if tokens == 4000 else OUTCOMES[number % len(OUTCOMES)]
        if number % 100 == 99 and tokens == 8000:  # killed: nobody says how it ended
            story.beat(now - 30, tokens, summary=tally.summary())
        elif outcome == "running":
            story.beat(now, tokens, every=3600, summary=tally.summary())
        else:
            story.end(began + 65, outcome, tokens)
            tally.take("attempt.ended", {"outcome": outcome, "reason": "as it was told"})
            story.beat(began + 65, tokens, summary=tally.summary())


OUTCOMES = ("done", "done", "done", "running", "running", "running", "preempted", "preempted", "done", "failed")


def shims(folder: Path, environment: dict[str, str]) -> None:
    """Put programs in front of SLURM's that note how long those take."""
    folder.mkdir()
    for name in ("sbatch", "scontrol", "scancel"):
        program = shutil.which(name, path=environment["PATH"])
        (folder / name).write_text(SHIM.format(program=program))
        (folder / name).chmod(0o755)
    environment["PATH"] = f"{folder}:{environment['PATH']}"


def measure(place: Place, runs: int, rounds: int, told: MemoryStore) -> dict[str, list[Taken]]:
    """How long each command takes in one place, time and again."""
    seeds = "seed=" + ",".join(map(str, range(runs)))
    submit = ("submit", "recipe.yaml", "--sbatch", "hold", "--quiet", "--array")
    place.time(*submit, "seed=1,2", "--name", "warm-up")
    place.time("cancel", "warm-up")
    times: dict[str, list[Taken]] = {}
    for turn in range(rounds):
        array = "begun" if turn == 0 else f"array-{turn}"
        times.setdefault("submit", []).append(place.time(*submit, seeds, "--name", array))
        times.setdefault("status, none has begun", []).append(place.time("status", array))
        if turn:
            place.time("cancel", array)
    for key, data in told.objects.items():
        path = place.objects / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for _ in range(rounds):
        times.setdefault("status, all have begun", []).append(place.time("status", "begun"))
        times.setdefault("runs", []).append(place.time("runs"))
    place.time("cancel", "begun")
    return times


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    told = MemoryStore()
    for number in range(wanted.runs):
        tell(told, f"begun.seed-{number}", number)
    title = f"command, {wanted.runs:,} runs"
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
            times = measure(Place(objects, environment, folder), wanted.runs, wanted.rounds, told)
        for command, taken in times.items():
            whole, slurm, processor = (statistics.median(column) for column in zip(*taken, strict=True))
            own = statistics.median(each.whole - each.slurm for each in taken) if command == "submit" else whole
            verdict = "" if own <= GOAL_SECONDS else f"  above the goal of {GOAL_SECONDS} s"
            print(f"{kind:<6} {command:<28} {whole:6.2f} {slurm:8.2f} {own:6.2f} {processor:12.2f}{verdict}")


if __name__ == "__main__":
    main()
