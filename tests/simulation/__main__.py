"""`python -m tests.simulation`: read one interleaving step by step, or play very many.

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
    """Say what was asked for; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, help="print this interleaving; with --count: the first of many")
    parser.add_argument("--count", type=int, help="play so many, and print a summary as JSON")
    parser.add_argument("--processes", type=int, default=1)
    asked = parser.parse_args()
    if asked.count is not None:
        return _many(asked.seed or 0, asked.count, asked.processes)
    if asked.seed is None:
        parser.error("say --seed or --count")
    outcome = play(asked.seed, trace=True)
    print("\n".join(outcome.trace))
    print(f"seed {outcome.seed}: {outcome.violation or 'every promise was kept'}")
    return int(outcome.violation is not None)


def _many(first: int, count: int, processes: int) -> int:
    columns = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[broken]} broken")]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("interleavings", total=count, broken=0)

        def tell(found: Survey) -> None:
            bar.update(task, completed=found.interleavings, broken=len(found.violations))

        found = survey(range(first, first + count), processes=processes, tell=tell)
    print(json.dumps(found.summary(), indent=1))
    return int(bool(found.violations))


if __name__ == "__main__":
    sys.exit(main())
