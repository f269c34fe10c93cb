"""Plays one interleaving of several actors on one run, determined by a seed."""

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
from headway.runs.garbage import find_garbage
from tests.simulation.actors import (
    ENVIRONMENT,
    RUN,
    STEP,
    Launch,
    Plan,
    World,
    collector,
    operator,
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
"""Silence after which all processes count as dead [s]."""
PACK_ENTRIES = 4
"""Entries per pack, few enough for short journals."""
RECIPE = parse(
    "name: run\nmodel: {layers: 1, width: 2, heads: 1, kv_heads: 1, ffn_width: 1}\n"
    "train: {tokens: 2048, batch_tokens: 2048, micro_batch_tokens: 2048}\n"
)
TEXT, DIGEST = to_yaml(RECIPE), digest(RECIPE)


@dataclass
class Outcome:
    """Result of an interleaving."""

    seed: int
    turns: int = 0
    violation: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    trace: list[str] = field(default_factory=list)


class Inline:
    """A thread pool without threads, so that only the scheduler decides the order."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        pass

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_args: object) -> None:
        pass

    def submit(self, work: Callable[..., T], *args: Any) -> "Future[T]":
        """Run the work at once."""
        future: Future[T] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # as a pool does: `result` raises it
            future.set_exception(error)
        return future

    def map(self, work: Callable[..., T], *jobs: Iterable[Any]) -> Iterator[T]:
        """Run the work lazily."""
        return map(work, *jobs)

    def shutdown(self, **_kwargs: object) -> None:
        """Do nothing."""


def play(seed: int, *, trace: bool = False) -> Outcome:
    """Play the interleaving of a seed. The same seed always gives the same outcome."""
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
    except Exception as error:  # any unexpected error is a violation
        outcome.violation = f"{type(error).__name__} is unexpected: {error}\n{traceback.format_exc()}"
    outcome.turns = scheduler.turn
    outcome.counts = invariants.counts + store.counts
    outcome.counts += Counter({"crash": scheduler.crashes, "pause": scheduler.pauses, "turn": scheduler.turn})
    return outcome


_FIXED_RECIPE: dict[str, Any] = {
    "parse": cache(parse),
    "to_yaml": lambda _recipe: TEXT,
    "digest": lambda _recipe: DIGEST,
}
"""Replaces YAML parsing, which would take most of the time, for the only recipe."""


@contextmanager
def _simulated(world: World) -> Iterator[None]:
    """Replace time, randomness and threads during the block, and report journal results to the invariants."""
    scheduler, nonces = world.scheduler, dict[object, str]()
    append: Callable[..., Any] = Journal._append  # noqa: SLF001 - all appends go through it

    def nonce(_bytes: int) -> str:
        nonces[scheduler.current] = f"{world.random.getrandbits(64):016x}"
        return nonces[scheduler.current]

    def checked_append(self: Journal, *args: Any) -> Any:
        nonces.pop(scheduler.current, None)
        try:
            entry = append(self, *args)
        except (FencedError, HeldError) as error:
            scheduler.note(f"  REFUSED: {type(error).__name__}")
            world.store.counts[type(error).__name__] += 1
            world.invariants.refused(nonces.get(scheduler.current))
            raise
        scheduler.note(f"  granted: {entry.kind} as entry {entry.seq}")
        world.invariants.granted(entry)
        return entry

    with ExitStack() as patches:
        patches.enter_context(scheduler.clock.patched())
        patches.enter_context(patch.object(logging.getLogger("headway"), "disabled", new=True))
        patches.enter_context(patch("secrets.token_hex", nonce))
        patches.enter_context(patch.object(Journal, "_append", checked_append))
        patches.enter_context(patch("headway.runs.pack.ENTRIES", PACK_ENTRIES))
        patches.enter_context(patch.multiple("headway.recipe", **_FIXED_RECIPE))
        patches.enter_context(patch("headway.checkpoint.reader.ThreadPoolExecutor", Inline))
        yield


def _begin(world: World) -> None:
    """Freeze the recipe and start the actors."""
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
        scheduler.spawn("operator", lambda: operator(world), within=150)
    if random.random() < 0.2:
        scheduler.spawn("vandal", lambda: vandal(world), within=100)


def _quiet(world: World) -> None:
    """Check the end: without faults all garbage can be deleted, all is sound, and a new attempt can train."""
    world.store.quiet()
    _collect(world)
    for key in world.invariants.spoiled:
        if not any(isinstance(each, Finding) and each.problem.startswith(key) for each in verify(world.run())):
            raise Violation(f"at the end verify misses the damaged {key}")
    for key in world.invariants.spoiled:  # as verify advises
        world.store.memory.delete(key)
    world.scheduler.clock.now += DEAD_SECONDS
    if findings := [each for each in verify(world.run()) if isinstance(each, Finding)]:
        raise Violation(f"at the end verify finds {findings[0].problem}")
    run, tokens = world.run(), world.run().history().tokens
    holder = Holder(host="host of the last", pid=1, started=1, launch="the last")
    number = run.claim(holder, world.recipe, "data", take_over=False).attempt
    commit = CheckpointWriter(run, Lineage(number, DIGEST, "data", ENVIRONMENT), tokens + STEP)
    report = commit.write_shard(pieces(commit.tokens, number, 0, 1), rank=0, world_size=1)
    commit.commit([report], parent=None, progress=Progress(seed=0, updates=1))
    newest = world.run().history().commits[-1]
    if (newest.tokens, newest.attempt) != (commit.tokens, number) or not read(world, newest):
        raise Violation("at the end a new attempt cannot be read")
    _collect(world)


def _collect(world: World) -> None:
    """Delete the garbage and check that none remains."""
    for each in list(find_garbage(world.run())):
        world.store.delete(each.key)
    if garbage := world.invariants.garbage():
        raise Violation(f"at the end find_garbage misses {garbage[0]}")
