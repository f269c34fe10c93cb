"""Whatever a forger does to a store, commands touch nothing beside it, end, and still list the run that is sound.

`HEADWAY_FORGERIES=2000` says how many forgeries there are; `-k "[17-"` plays one of them again.
"""

import os
import random
import resource
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.forger.command import Outcome, as_process, in_process
from tests.forger.forger import Forger
from tests.forger.neighbours import Neighbours, Tree, tree
from tests.forger.permission import breaches, changes, copy_breaches

pytestmark = pytest.mark.slow
FORGERIES = int(os.environ.get("HEADWAY_FORGERIES", "200"))
REAL_EACH = 20
"""One forgery in so many is looked at by a command in a process of its own."""
COMMANDS = 4
"""Commands after each forgery."""
MEMORY = 200 << 20
"""What a forgery may cost more than a sound store [bytes]."""
READ = 200 << 20
"""What a command may read [bytes]; the store has half a megabyte."""
CALLS = 20_000
"""In how many calls."""
RUNS = ("tale", "tale", "open", "stored", "good")
GOOD = {"run": "good", "state": "done", "committed": 10000}


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    """What must not change. Every command has run once when it is here, so that all is loaded."""
    folder = tmp_path_factory.mktemp("forger")
    neighbours = Neighbours(folder)
    with pytest.MonkeyPatch.context() as patch:
        work = folder / "work"
        work.mkdir()
        patch.chdir(work)
        patch.setenv("HOME", str(neighbours.home))
        patch.setenv("MPLCONFIGDIR", str(folder / "matplotlib"))
        patch.setenv("HEADWAY_CACHE", str(folder / "cache"))
        patch.setenv("HEADWAY_STORE", str(folder / "store"))
        shutil.copytree(neighbours.sound, folder / "store")
        for words in every_command(folder / "work"):
            outcome = in_process(words)
            assert not [*outcome.faults()], (words, [*outcome.faults()])
        for name in ("store", "target"):
            shutil.rmtree(folder / name)
        yield neighbours
    neighbours.close()


@pytest.fixture(scope="module")
def memory(neighbours: Neighbours) -> int:
    """The most memory that this process had with a sound store [bytes]."""
    del neighbours
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def every_command(work: Path, run: str = "stored") -> list[tuple[str, ...]]:
    """All commands that read a store, for a run."""
    return [
        *(("runs",), ("status", run), ("logs", run), ("ledger", run), ("goodput", run), ("verify", run)),
        *(("fingerprint", run), ("plot", run, "--to", str(work / "plot.svg"))),
        *(("store", "ls"), ("store", "gc", "--dry-run"), ("store", "gc", run), ("store", "gc")),
        ("store", "cp", run, str(work.parent / "target")),
        *(("models",), ("models", "keeper@stable", "--verify"), ("alias", "keeper@1", "tried")),
        ("status", "good"),
        ("export", run, "--to", str(work / "exported")),
    ]


@pytest.mark.parametrize("seed", range(FORGERIES))
def test_a_forgery_changes_nothing_beside_it(neighbours: Neighbours, memory: int, seed: int) -> None:
    """Nor does a command end in a traceback, hang, read a secret, take memory, or hide a sound run."""
    folder = neighbours.home.parent
    root, work = folder / "store", folder / "work"
    shutil.copytree(neighbours.sound, root)
    shutil.copytree(neighbours.precious, folder / "target")
    try:
        forger = Forger(root, neighbours.home, seed)
        forger.forge()
        draw = random.Random(seed)
        for _ in range(COMMANDS):
            words = draw.choice(every_command(work, draw.choice(RUNS)))
            if words[0] not in {"plot"} and draw.random() < 0.5:
                words = (*words, "--json")
            before, targets = tree(root), tree(folder / "target")
            outcome = in_process(words)
            faults = [*outcome.faults(), *neighbour_faults(neighbours, outcome, root, before, tree(root), targets)]
            assert not faults, explain(seed, forger, words, faults)
        listed = in_process(("runs", "--json"))
        faults = [*listed.faults()]
        assert not faults, explain(seed, forger, listed.words, faults)
        rows = [{key: row[key] for key in GOOD} for row in listed.document["runs"]]
        assert GOOD in rows, explain(seed, forger, listed.words, ["the sound run is not listed", listed.out])
        assert in_process(("verify", "good")).code == 0
    finally:
        for made in (root, folder / "target", work):
            shutil.rmtree(made)
        work.mkdir()
        os.chdir(work)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - memory
    assert grown <= MEMORY, explain(seed, forger, ("any",), [f"{grown >> 20} MiB more than for a sound store"])


def neighbour_faults(
    neighbours: Neighbours, outcome: Outcome, root: Path, before: Tree, after: Tree, targets: Tree
) -> Iterator[str]:
    """What a command did beyond its own store, and in it."""
    if neighbours.secret in outcome.out + outcome.err:
        yield "it printed the secret"
    if neighbours.canary.poll() is not None:
        yield "it ended the process beside it"
    if outcome.bytes_read > READ or outcome.reads > CALLS:
        yield f"it read {outcome.bytes_read:,} bytes in {outcome.reads:,} calls"
    yield from changes(neighbours.state, neighbours.trees())
    yield from breaches(outcome, root, before, after)
    if outcome.words[:2] == ("store", "cp"):
        target = Path(outcome.words[3])
        yield from copy_breaches(outcome.words[2], target, targets, tree(target))
        copied = [path for path in target.rglob("*") if path.is_file()]
        if any(neighbours.secret.encode() in path.read_bytes() for path in copied):
            yield "it copied the secret"


def explain(seed: int, forger: Forger, words: tuple[str, ...], faults: Sequence[str]) -> str:
    """How to see it again."""
    return "\n".join([f"seed {seed}, headway {shlex.join(words)}", *forger.story, "it did:", *faults])
