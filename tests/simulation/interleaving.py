"""One interleaving of a handful of actors on one run, from its seed to the quiet after it."""

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

from headway.checkpoint.commit import CheckpointWriter, Lineage
from headway.checkpoint.manifest import Progress
from headway.checkpoint.verify import Finding, verify
from headway.errors import FencedError, HeldError
from headway.recipe import digest, parse, to_yaml
from headway.runs import Holder, Journal
from headway.runs.garbage import garbage
from tests.simulation.actors import (
    ENVIRONMENT,
    RUN,
    STEP,
    Launch,
    Plan,
    World,
    collector,
    read,
    reader,
    vandal,
    verifier,
)
from tests.simulation.content import pieces
from tests.simulation.invariants import Invariants
from tests.simulation.scheduler import Clock, Scheduler, Temper, Violation
from tests.simulation.store import SimulatedStore

T = TypeVar("T")
DEAD_SECONDS = 1000
"""After so long a silence everybody counts as dead."""
PACK_ENTRIES = 4
"""Entries of a pack, so that short journals have some."""
RECIPE = parse(
    "name: run\nmodel: {layers: 1, width: 2, heads: 1, kv_heads: 1, ffn_width: 1}\n"
    "train: {tokens: 2048, batch_tokens: 2048, micro_batch_tokens: 2048}\n"
)
TEXT, DIGEST = to_yaml(RECIPE), digest(RECIPE)


@dataclass
class Outcome:
    """How an interleaving went."""

    seed: int
    turns: int = 0
    violation: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)


class Inline:
    """A pool of threads without threads: the scheduler decides who goes on, and nobody else."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_args: object) -> None:
        pass

    def submit(self, work: Callable[..., T], *args: Any) -> "Future[T]":
        """Do the work at once."""
        future: Future[T] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # as a pool does: whoever asks for the result is told
            future.set_exception(error)
        return future

    def map(self, work: Callable[..., T], *jobs: Iterable[Any]) -> Iterator[T]:
        """Do each piece of work when its result is asked for."""
        return map(work, *jobs)

    def shutdown(self, **_kwargs: object) -> None:
        """Nothing to shut down."""


def play(seed: int, *, trace: bool = False) -> Outcome:
    """Run the interleaving of a seed, and say how it went; the same seed goes the same way every time."""
    random, outcome = Random(seed), Outcome(seed)
    scheduler = Scheduler(random, Temper.draw(random), Clock(), outcome.trace if trace else None)
    objects: dict[str, bytes] = {}
    keep, reach = random.choice((1, 1, 2)), random.choice((0, 0, 2 * STEP))
    invariants = Invariants(RUN, objects, keep=keep, reach=reach, packed=PACK_ENTRIES)
    store = SimulatedStore(scheduler, random, objects, invariants)
    world = World(random, scheduler, store, invariants, RECIPE, keep, reach)
    try:
        with _simulated(world):
            _begin(world)
            scheduler.run()
            _quiet(world)
    except Violation as violation:
        outcome.violation = str(violation)
    except Exception as error:  # whatever an actor does not expect is a find
        outcome.violation = f"{type(error).__name__} comes out of nowhere: {error}\n{traceback.format_exc()}"
    outcome.turns = scheduler.turn
    outcome.counts = invariants.counts + store.counts
    outcome.counts += Counter({"crash": scheduler.crashes, "pause": scheduler.pauses, "turn": scheduler.turn})
    return outcome


_KNOWN_RECIPE: dict[str, Any] = {
    "parse": cache(parse),
    "to_yaml": lambda _recipe: TEXT,
    "digest": lambda _recipe: DIGEST,
}
"""YAML would take most of the time, and there is one recipe only."""


@contextmanager
def _simulated(world: World) -> Iterator[None]:
    """Time, chance and threads are the simulation's, and every answer of the journal is told to the invariants."""
    scheduler, nonces = world.scheduler, dict[object, str]()
    append: Callable[..., Any] = Journal._append  # noqa: SLF001 - all appends go through it

    def nonce(_bytes: int) -> str:
        nonces[scheduler.current] = f"{world.random.getrandbits(64):016x}"
        return nonces[scheduler.current]

    def told(self: Journal, *args: Any) -> Any:
        nonces.pop(scheduler.current, None)
        try:
            entry = append(self, *args)
        except (FencedError, HeldError) as error:
            scheduler.note(f"  IS TOLD: {type(error).__name__}")
            world.store.counts[type(error).__name__] += 1
            world.invariants.refused(nonces.get(scheduler.current))
            raise
        scheduler.note(f"  is told: {entry.kind} as entry {entry.seq}")
        world.invariants.granted(entry)
        return entry

    with ExitStack() as patches:
        patches.enter_context(scheduler.clock.patched())
        patches.enter_context(patch.object(logging.getLogger("headway"), "disabled", new=True))
        patches.enter_context(patch("secrets.token_hex", nonce))
        patches.enter_context(patch.object(Journal, "_append", told))
        patches.enter_context(patch("headway.runs.pack.ENTRIES", PACK_ENTRIES))
        patches.enter_context(patch.multiple("headway.recipe", **_KNOWN_RECIPE))
        patches.enter_context(patch("headway.checkpoint.reader.ThreadPoolExecutor", Inline))
        yield


def _begin(world: World) -> None:
    """Freeze the recipe, and bring on the actors."""
    world.run().freeze(world.recipe)
    random, scheduler = world.random, world.scheduler
    world.store.rate = random.choice((0.0, 0.03, 0.1, 0.2))
    world.store.late = random.choice((0.0, 0.0, 0.1, 0.3))
    for name in "ABC"[: random.randint(2, 3)]:
        Launch(world, Plan.draw(name, world)).begin()
    for number in range(random.randint(1, 2)):
        scheduler.spawn(f"reader {number + 1}", lambda: reader(world), within=150)
    scheduler.spawn("collector", lambda: collector(world), within=200)
    if random.random() < 0.4:
        scheduler.spawn("verifier", lambda: verifier(world), within=200)
    if random.random() < 0.2:
        scheduler.spawn("vandal", lambda: vandal(world), within=100)


def _quiet(world: World) -> None:
    """When all are gone and nothing fails any more: nothing is left over, all is sound, and life goes on."""
    world.store.quiet()
    _collect(world)
    for key in world.invariants.spoiled:
        if not any(isinstance(found, Finding) and found.what.startswith(key) for found in verify(world.run())):
            raise Violation(f"in the end verify does not find that {key} is damaged")
    for key in world.invariants.spoiled:  # as verify advises
        world.store.memory.delete(key)
    world.scheduler.clock.now += DEAD_SECONDS
    if findings := [found for found in verify(world.run()) if isinstance(found, Finding)]:
        raise Violation(f"in the end verify finds {findings[0].what}")
    run, tokens = world.run(), world.run().history().tokens
    holder = Holder(host="host of the last", pid=1, started=1, launch="the last")
    number = run.claim(holder, world.recipe, "data", take_over=False).attempt
    commit = CheckpointWriter(run, Lineage(number, DIGEST, "data", ENVIRONMENT), tokens + STEP)
    report = commit.write_shard(pieces(commit.tokens, number, 0, 1), rank=0, ranks=1)
    commit.commit([report], parent=None, progress=Progress(seed=0, updates=1))
    newest = world.run().history().commits[-1]
    if (newest.tokens, newest.attempt) != (commit.tokens, number) or not read(world, newest):
        raise Violation("in the end a new attempt cannot be read")
    _collect(world)


def _collect(world: World) -> None:
    """Delete the garbage, and see that none is left."""
    for each in list(garbage(world.run())):
        world.store.delete(each.key)
    if left := world.invariants.garbage():
        raise Violation(f"in the end {left[0]} is garbage that is not found")
