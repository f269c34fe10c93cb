"""Whatever a forger does to a store, commands touch nothing beside it, end, and still list the run that is sound.

`HEADWAY_FORGERIES=2000` says how many forgeries there are; `-k "folder and 17"` plays some of them again.
"""

import os
import random
import resource
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.s3.server import BUCKET, S3Server
from tests.forger.command import Outcome, as_process, in_process
from tests.forger.folder_copy import Tree, changes, describe, tree
from tests.forger.forger import Forger
from tests.forger.neighbours import Neighbours
from tests.forger.permission import breaches, copy_breaches

pytestmark = pytest.mark.slow
FORGERIES = int(os.environ.get("HEADWAY_FORGERIES", "200"))
GROUPS = [pytest.mark.xdist_group(f"forger-folder-{number}") for number in range(2)]
"""Tests that set up their scene once."""
REAL_EACH = 20
"""One forgery in so many is looked at by a command in a process of its own."""
S3_EACH = 10
"""One forgery in so many is played in a bucket."""
COMMANDS = 6
"""Commands after each forgery."""
MEMORY = 200 << 20
"""What a forgery may cost more than a sound store [bytes]."""
READ = 200 << 20
"""What a command may read [bytes]; the store has half a megabyte."""
CALLS = 20_000
"""In how many calls."""
RUNS = ("tale", "open", "stored", "good")
GOOD = {"run": "good", "state": "done", "tokens": 10000}


@dataclass(frozen=True)
class Scene:
    """What must not change, and the memory that commands take over the sound store."""

    neighbours: Neighbours
    memory_here: int
    """Of this process [bytes]."""
    memory_of_command: int
    """Of a command in its own [bytes]."""


@pytest.fixture(scope="module")
def folder_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A forged folder."""
    folder = tmp_path_factory.mktemp("forger")
    neighbours = Neighbours(folder, folder / "store")
    with scene(neighbours, {"HEADWAY_STORE": str(neighbours.store.place)}) as ready:
        yield ready


@pytest.fixture(scope="module")
def bucket_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A forged bucket."""
    folder = tmp_path_factory.mktemp("forger")
    with S3Server(folder / "server") as server:
        neighbours = Neighbours(folder, folder / "server" / "objects" / BUCKET / "store")
        with scene(neighbours, {**server.environment, "HEADWAY_STORE": f"{server.url}/store"}) as ready:
            yield ready


@contextmanager
def scene(neighbours: Neighbours, environment: Mapping[str, str]) -> Iterator[Scene]:
    """The scene in this environment. Every command has run once when it is here, so that all is loaded."""
    folder = neighbours.home.parent
    with closing(neighbours), pytest.MonkeyPatch.context() as patch:
        patch.chdir(neighbours.desk)
        patch.setenv("HOME", str(neighbours.home))
        patch.setenv("MPLCONFIGDIR", str(folder / "matplotlib"))
        patch.setenv("HEADWAY_CACHE", str(folder / "cache"))
        for name, value in environment.items():
            patch.setenv(name, value)
        commands = [*every_command(neighbours, "stored"), *rare_commands(neighbours, "stored")]
        for words in commands:
            assert_sound(in_process(words))
        neighbours.restore()
        largest = as_process(next(words for words in commands if words[0] == "export"))
        assert_sound(largest)
        neighbours.restore()
        yield Scene(neighbours, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, largest.memory)


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
    plot, exported, quantized = (str(neighbours.work / name) for name in ("plot.svg", "exported", "quantized"))
    return [
        ("plot", run, "--to", plot),
        ("export", run, "--to", exported),
        ("quantize", "keeper@1", "--to", quantized),
    ]


FOLDER_SEEDS = [
    pytest.param(seed, marks=GROUPS[seed % len(GROUPS)]) for seed in range(FORGERIES - FORGERIES // S3_EACH)
]


@pytest.mark.parametrize("seed", FOLDER_SEEDS)
def test_a_forgery_in_a_folder_changes_nothing_beside_it(folder_scene: Scene, seed: int) -> None:
    """Nor does a command end in a traceback, hang, read a secret, take memory, or hide a sound run."""
    play(folder_scene, seed)


@pytest.mark.xdist_group("forger-bucket")
@pytest.mark.parametrize("seed", range(FORGERIES // S3_EACH))
def test_a_forgery_in_a_bucket_changes_nothing_beside_it(bucket_scene: Scene, seed: int) -> None:
    """As in a folder."""
    play(bucket_scene, seed)


def play(scene: Scene, seed: int) -> None:
    """Forge, run commands, and make the stores what they were."""
    neighbours = scene.neighbours
    forger = Forger(neighbours.store.place, neighbours.home, seed, only_objects=neighbours.in_bucket)
    forger.forge()
    try:
        for words in drawn_commands(neighbours, forger.touched, random.Random(seed)):
            faults = [*faults_of(scene, words, seed)]
            assert not faults, explain(seed, forger, words, faults)
        words = ("runs", "--json")
        listed = in_process(words)
        faults = [*listed.faults()]
        assert not faults, explain(seed, forger, words, faults)
        shown = any(GOOD.items() <= row.items() for row in listed.document["runs"])
        assert shown, explain(seed, forger, words, ["the sound run is not listed", listed.out])
        assert in_process(("verify", "good")).code == 0, explain(seed, forger, ("verify", "good"), [])
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - scene.memory_here
        assert grown <= MEMORY, explain(seed, forger, words, [f"{grown >> 20} MiB more than for a sound store"])
    finally:
        neighbours.restore()


def drawn_commands(neighbours: Neighbours, touched: Sequence[str], draw: random.Random) -> Iterator[tuple[str, ...]]:
    """A sequence of commands, most of which look at what was forged."""
    names = {name.split("/")[1] for name in touched if name.startswith("runs/")}.intersection(RUNS)
    subjects = {
        *names,
        *(["keeper@1", "keeper@stable", "models"] if any(name.startswith("models") for name in touched) else []),
    }
    for _ in range(COMMANDS):
        run = draw.choice(sorted(names) or RUNS)
        commands = rare_commands(neighbours, run) if draw.random() < 0.05 else every_command(neighbours, run)
        near = [words for words in commands if subjects.intersection(words)]
        words = draw.choice(near if near and draw.random() < 0.6 else commands)
        yield (*words, "--json") if words[0] != "plot" and draw.random() < 0.5 else words


def faults_of(scene: Scene, words: Sequence[str], seed: int) -> Iterator[str]:
    """Run a command, and tell what it did that none may do."""
    neighbours = scene.neighbours
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
    if outcome.memory > scene.memory_of_command + MEMORY:
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
