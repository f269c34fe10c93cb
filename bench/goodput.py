"""The cost of preemption: a run on a real SLURM cluster that is preempted once a minute, extrapolated to an hour.

    python -m bench.goodput [--preemptions 5] [--every 60]

One node, one rank, the quick start's model with a batch so small that a step takes about 50 ms. Each preemption is a
short job in a higher partition. The tables show wall-clock time by phase, and restarts by stage.

The extrapolation to one preemption per hour assumes that the share of steps between a restart and the next signal stays
as measured (data, saves and evaluations take the same share of any minute), and that a preemption costs as much as
here: drain, start-up, restore, and tokens trained twice. SLURM's part (the queue, and the time from the end of an
attempt to the queue) is separate, because it depends on the cluster's KillWait and begin time.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.engines.slurm.cluster import Cluster
from tests.integration.site import Site, Submitted
from tests.integration.training import Place

from headway import recipe
from headway.data.build import build
from headway.reports.time_accounting import TimeAccounting, account_time
from headway.reports.wall_time import wall_time

BATCH_TOKENS = 512
SMALL = (
    f"train.batch_tokens={BATCH_TOKENS}",
    f"train.micro_batch_tokens={BATCH_TOKENS}",
    "train.lanes=1",
    "train.tokens=104857600",
)
FORGIVING = ("train.schedule.decay_tokens=10485760", "evaluation.every_tokens=1048576")
COSTS = ("startup", "restore", "drain", "lost")
"""Phases that a preemption causes in Headway."""
HOUR = 3600.0
GOAL = 0.99
GOAL_SECONDS = 15.0


def measure(preemptions: int, every: float, folder: Path) -> tuple[TimeAccounting, int, Submitted]:
    """Run a job with this many preemptions, then cancel it; returns its time accounting, its tokens and the job."""
    document = Path("jobs/recipes/quickstart.yaml").absolute()
    build(recipe.load(document, [f"data.path={folder}/data"]))
    place = Place(document, folder / "store")
    with Cluster(folder / "slurm", 1) as cluster:
        site = Site(cluster, place, folder)
        options = [f"data.path={folder}/data", "checkpoint.every_tokens=null", *SMALL, *FORGIVING]
        job = site.submit("run", *options, options=["--nproc", "1", "--time", "60"])
        for number in range(preemptions):
            job.await_event("attempt.started", number + 1)
            time.sleep(every)
            cluster.client("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "true")
        job.await_event("attempt.started", preemptions + 1)
        time.sleep(every)
        site.run("cancel", "run")
        job.await_end("CANCELLED")
        return account_time(place.run("run")), place.history("run").tokens, job


def restarts(job: Submitted) -> list[dict[str, Any]]:
    """Start-up of all attempts but the first, by stage [s]."""
    hidden = {"event", "level", "timestamp", "run", "attempt", "rank", "phase", "tokens"}
    starts = [
        {key: value for key, value in event.items() if key not in hidden} for event in job.named("attempt.started")
    ]
    return starts[1:]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preemptions", type=int, default=5)
    parser.add_argument("--every", type=float, default=60.0, help="seconds of training before each preemption")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="goodput-") as folder:
        books, tokens, job = measure(chosen.preemptions, chosen.every, Path(folder))
        starts = restarts(job)
    steps = tokens // BATCH_TOKENS
    clock = wall_time(books)
    cost = sum(books.phases[phase] for phase in COSTS) / (chosen.preemptions + 1)
    steady = books.phases["step"] / (books.allocated - sum(books.phases[phase] for phase in COSTS))
    hourly = steady * (1 - cost / HOUR)
    result = {
        "preemptions": chosen.preemptions,
        "step_seconds": books.phases["step"] / steps,
        "goodput_measured": books.goodput,
        "goodput_of_wall_clock": clock.goodput,
        "cost_seconds": cost,
        "steady_share": steady,
        "goodput_at_one_an_hour": hourly,
        "phases": books.phases,
        "restarts": starts,
    }
    if chosen.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{chosen.preemptions} preemptions, one after every {chosen.every:.0f} s of training; a step took "
          f"{1000 * result['step_seconds']:.0f} ms")  # fmt: skip
    print(f"{'phase':<12}{'seconds':>10}{'share of allocated time':>26}")
    for phase, seconds in sorted(books.phases.items(), key=lambda item: -item[1]):
        share = "cluster" if phase == "queue" else f"{seconds / books.allocated:.2%}"
        if seconds:
            print(f"{phase:<12}{seconds:>10.1f}{share:>26}")
    print(f"goodput measured: {books.goodput:.2%} of allocated time, {clock.goodput:.2%} of the wall clock")
    print(f"one preemption cost {cost:.2f} s in Headway; between preemptions {steady:.2%} of the time were steps")
    print(f"at one per hour: {steady:.4f} x (1 - {cost:.2f} / {HOUR:.0f}) = {hourly:.2%} (goal {GOAL:.0%})")
    print(f"\nrestart to the first step, medians of {len(starts)} [s] (goal {GOAL_SECONDS:.0f} in total):")
    for stage in starts[0] if starts else ():
        print(f"  {stage:<20}{statistics.median(each[stage] for each in starts):>8.2f}")


if __name__ == "__main__":
    main()
