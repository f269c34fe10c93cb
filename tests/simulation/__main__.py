"""`python -m tests.simulation`: prints one interleaving step by step, or plays many.

python -m tests.simulation --seed 175
python -m tests.simulation --count 100000 --processes 2
"""

import argparse
import json
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation.interleaving import play
from tests.simulation.survey import Survey, survey


def main() -> int:
    """Run the command; returns 1 if an invariant was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, help="print this interleaving; with --count: the first seed")
    parser.add_argument("--count", type=int, help="number of interleavings to play; prints a summary as JSON")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.count is not None:
        return _many(arguments.seed or 0, arguments.count, arguments.processes)
    if arguments.seed is None:
        parser.error("pass --seed or --count")
    outcome = play(arguments.seed, trace=True)
    print("\n".join(outcome.trace))
    print(f"seed {outcome.seed}: {outcome.violation or 'no violation'}")
    return int(outcome.violation is not None)


def _many(first: int, count: int, processes: int) -> int:
    columns = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[broken]} broken")]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("interleavings", total=count, broken=0)

        def report(progress: Survey) -> None:
            bar.update(task, completed=progress.interleavings, broken=len(progress.violations))

        result = survey(range(first, first + count), processes=processes, report=report)
    print(json.dumps(result.summary(), indent=1))
    return int(bool(result.violations))


if __name__ == "__main__":
    sys.exit(main())
