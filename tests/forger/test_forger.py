"""Whatever a forger does to a store, commands touch nothing beside it, end, and still list the run that is sound.

`HEADWAY_FORGERIES=2000` says how many forgeries there are; `-k "file-17]"` plays one of them again.
"""

import os
import random
import resource
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engines.s3.server import BUCKET, S3Server
from tests.forger.command import Outcome, as_process, in_process
from tests.forger.folder_copy import Tree, changes, describe, tree
from tests.forger.forger import Forger
from tests.forger.neighbours import Neighbours
from tests.forger.permission import breaches, copy_breaches

pytestmark = [pytest.mark.slow, pytest.mark.spread]
FORGERIES = int(os.environ.get("HEADWAY_FORGERIES", "9"))
REAL_EACH = 20
"""One forgery in so many is looked at by a command in a process of its own."""
S3_EACH = 10
"""One forgery in so many is played in a bucket as well."""
COMMANDS = 4
"""Commands after each forgery."""
MEMORY = 200 << 20
"""What a forgery may cost more than a sound store [bytes]."""
READ = 200 << 20
"""What a command may read [bytes]; the store has half a megabyte."""
CALLS = 20_000
"""In how many calls."""
RUNS = ("tale", "tale", "open", "stored", "good")
GOOD = {"run": "good", "state": "done", "tokens": 10000}


@pytest.fixture(scope="module")
def neighbours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    """What must not change. Every command has run once when it is here, so that all is loaded."""
    folder = tmp_path_factory.mktemp("forger")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if request.param == "s3":
            server = stack.enter_context(S3Server(folder / "server"))
            neighbours = Neighbours(folder, folder / "server" / "objects" / BUCKET / "store")
            environment = {**server.environment, "HEADWAY_STORE": f"{server.url}/store"}
        else:
            neighbours = Neighbours(folder, folder / "store")
            environment = {"HEADWAY_STORE": str(neighbours.store.place)}
        stack.callback(neighbours.close)
        patch.chdir(neighbours.desk)
        patch.setenv("HOME", str(neighbours.home))
        patch.setenv("MPLCONFIGDIR", str(folder / "matplotlib"))
        patch.setenv("HEADWAY_CACHE", str(folder / "cache"))
        for name, value in environment.items():
            patch.setenv(name, value)
        for words in [*every_command(neighbours, "stored"), *rare_commands(neighbours, "stored")]:
            assert_sound(in_process(words))
        neighbours.restore()
        yield neighbours


@pytest.fixture(scope="module")
def memory(neighbours: Neighbours) -> tuple[int, int]:
    """The most memory of this process, and of a command in its own, with a sound store [bytes]."""
    real = [*every_command(neighbours, "stored"), *rare_commands(neighbours, "stored")]
    largest = as_process(next(words for words in real if words[0] == "export"))
    assert_sound(largest)
    neighbours.restore()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, largest.memory


def every_command(neighbours: Neighbours, run: str) -> list[tuple[str, ...]]:
    """The commands that look at a store, keep it clean and copy it."""
    return [
        *(("runs",), ("status", run), ("status", "good"), ("logs", run), ("ledger", run), ("goodput", run)),
        *(("verify", run), ("fingerprint", run), ("store", "ls"), ("store", "gc", "--dry-run"), ("store", "gc")),
        *(("store", "gc", run), ("store", "cp", run, str(neighbours.target.place))),
        *(("models",), ("models", "keeper@stable", "--verify"), ("alias", "keeper@1", "tried")),
    ]


def rare_commands(neighbours: Neighbours, run: str) -> list[tuple[str, ...]]:
    """Those that take longer."""
    work = neighbours.work
    return [("plot", run, "--to", str(work / "plot.svg")), ("export", run, "--to", str(work / "exported"))]


@pytest.mark.parametrize(
    ("neighbours", "seed"),
    [*(("file", seed) for seed in range(FORGERIES)), *(("s3", seed) for seed in range(FORGERIES // S3_EACH))],
    indirect=["neighbours"],
)
def test_a_forgery_changes_nothing_beside_it(neighbours: Neighbours, memory: tuple[int, int], seed: int) -> None:
    """Nor does a command end in a traceback, hang, read a secret, take memory, or hide a sound run."""
    forger = Forger(neighbours.store.place, neighbours.home, seed, only_objects=neighbours.in_bucket)
    forger.forge()
    try:
        for words in drawn_commands(neighbours, random.Random(seed)):
            faults = [*faults_of(neighbours, words, seed, memory)]
            assert not faults, explain(seed, forger, words, faults)
        words = ("runs", "--json")
        listed = in_process(words)
        assert not [*listed.faults()], explain(seed, forger, words, [*listed.faults()])
        shown = any(GOOD.items() <= row.items() for row in listed.document["runs"])
        assert shown, explain(seed, forger, words, ["the sound run is not listed", listed.out])
        assert in_process(("verify", "good")).code == 0, explain(seed, forger, ("verify", "good"), [])
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - memory[0]
        assert grown <= MEMORY, explain(seed, forger, words, [f"{grown >> 20} MiB more than for a sound store"])
    finally:
        neighbours.restore()


def drawn_commands(neighbours: Neighbours, draw: random.Random) -> Iterator[tuple[str, ...]]:
    """A sequence of commands."""
    for _ in range(COMMANDS):
        choose = rare_commands if draw.random() < 0.04 else every_command
        words = draw.choice(choose(neighbours, draw.choice(RUNS)))
        yield (*words, "--json") if words[0] != "plot" and draw.random() < 0.5 else words


def faults_of(neighbours: Neighbours, words: Sequence[str], seed: int, memory: tuple[int, int]) -> Iterator[str]:
    """Run a command, and tell what it did that none may do."""
    store, target = neighbours.store.place, neighbours.target.place
    before, target_before = tree(store), tree(target)
    outcome = in_process(words) if seed % REAL_EACH else as_process(words)
    yield from outcome.faults()
    if neighbours.secret in outcome.out + outcome.err:
        yield "it printed the secret"
    if neighbours.canary.poll() is not None:
        yield "it ended the process beside it"
    if outcome.bytes_read > READ or outcome.reads > CALLS:
        yield f"it read {outcome.bytes_read:,} bytes in {outcome.reads:,} calls"
    if outcome.memory > memory[1] + MEMORY:
        yield f"it took {outcome.memory >> 20} MiB"
    yield from describe(changes(neighbours.state, neighbours.trees()))
    yield from breaches(outcome, store, before, tree(store))
    yield from copy_breaches(outcome, target, target_before, tree(target))
    if any(neighbours.secret.encode() in path.read_bytes() for path in written(neighbours, target_before)):
        yield "it copied the secret"


def written(neighbours: Neighbours, target_before: Tree) -> list[Path]:
    """The files that a command wrote outside of its store."""
    copied = changes(target_before, tree(neighbours.target.place))
    return [path for path in (*map(Path, copied), *neighbours.work.rglob("*")) if path.is_file()]


def assert_sound(outcome: Outcome) -> None:
    """A command over the sound store does what it should, so the faults of others are the forger's."""
    assert outcome.code == 0, (outcome.words, outcome.err)
    assert not [*outcome.faults()], (outcome.words, [*outcome.faults()])


def explain(seed: int, forger: Forger, words: Sequence[str], faults: Sequence[str]) -> str:
    """How to see it again."""
    return "\n".join([f"seed {seed}, headway {shlex.join(words)}", *forger.story, "it did:", *faults])
