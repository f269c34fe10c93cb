"""One of two processes that want the same run: takes it over, saves until it is fenced off, and again.

    python -m tests.integration.rival STORE RUN ROUNDS SEED

Uses the production protocol, without torch, so that a hundred take-overs are a matter of seconds. Prints one JSON line
for each attempt: its number, the tokens of the commits that it was told were made, and those of the one that failed.
"""

import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from headway.checkpoint.commit import CheckpointWriter, Lineage
from headway.checkpoint.manifest import Environment, Progress
from headway.checkpoint.retention import Retention
from headway.checkpoint.shard import Piece
from headway.errors import FencedError
from headway.objectstore import open_store
from headway.recipe import Recipe
from headway.runs import Run, this_process

ROWS, COLUMNS = 64, 256
RANKS = 2


def content(tokens: int, attempt: int) -> bytes:
    """The bytes of the whole tensor that `attempt` saves at `tokens`: its own, in every element."""
    return random.Random(f"{tokens}/{attempt}").randbytes(ROWS * COLUMNS * 4)


def save(commit: CheckpointWriter, parent: str | None) -> str:
    """Save as two ranks do, side by side; returns the manifest's key."""
    whole = memoryview(content(commit.tokens, commit.lineage.attempt))
    rows = ROWS // RANKS

    def write(rank: int) -> dict[str, object]:
        size = rows * COLUMNS * 4
        data = whole[rank * size : (rank + 1) * size]
        piece = Piece("model.w", "float32", (ROWS, COLUMNS), (rank * rows, 0), (rows, COLUMNS), data)
        return commit.write_shard([piece], rank=rank, world_size=RANKS)

    with ThreadPoolExecutor(RANKS) as ranks:
        reports = list(ranks.map(write, range(RANKS)))
    return commit.commit(reports, parent=parent, progress=Progress(seed=0, updates=commit.tokens))


def attempt(run: Run, recipe: Recipe, dice: random.Random) -> dict[str, object]:
    """Take the run over, save until somebody else has, and say what happened."""
    number = run.claim(this_process(f"rival-{dice.random()}"), recipe, "data", take_over=True).seq
    environment = Environment(device="none", precision="fp32", threads=1, torch="none", headway="none")
    lineage, retention = Lineage(number, "recipe", "data", environment), Retention(keep=3)
    made: list[int] = []
    parent, tokens = None, run.history(upto=number).tokens
    while True:
        tokens += 1
        try:
            parent = save(CheckpointWriter(run, lineage, tokens), parent)
            made.append(tokens)
            retention.prune(run, number)
        except FencedError:
            return {"attempt": number, "made": made, "failed": tokens}
        time.sleep(dice.uniform(0.0, 0.02))


def main() -> None:
    """Play one rival's part."""
    url, name, rounds, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    run, dice = Run(open_store(url), name), random.Random(seed)
    recipe = run.recipe()
    for _ in range(rounds):
        print(json.dumps(attempt(run, recipe, dice)), flush=True)  # noqa: T201 - what the test reads
        time.sleep(dice.uniform(0.0, 0.1))
    run.claim(this_process("rival-last"), recipe, "data", take_over=True)  # lets the other one go


if __name__ == "__main__":
    main()
