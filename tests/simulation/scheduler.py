"""Actors that take turns in one thread, in an order that a seed decides.

An actor is a greenlet that runs until it comes to a yield point: before and after each of its writes, and after each
of its reads. There another may go on, and there it can be crashed, or paused for long enough to become a zombie.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from unittest.mock import patch

from greenlet import GreenletExit, getcurrent, greenlet

LONGEST = 6000
"""Turns after which an interleaving counts as one that never ends."""


class Violation(BaseException):
    """The protocol broke a promise. No kind of `Exception`, so that no code under test can swallow it."""


@dataclass(frozen=True)
class Temper:
    """How rough an interleaving is; shares of turns."""

    switch: float
    """After which somebody else goes on."""
    crash: float
    pause: float
    longest: int
    """Turns of others that a pause can last."""

    @classmethod
    def draw(cls, random: Random) -> "Temper":
        """Some are calm, some are not."""
        return cls(
            random.choice((0.05, 0.2, 0.5, 1.0)),
            random.choice((0.0, 0.002, 0.01, 0.03)),
            random.choice((0.0, 0.01, 0.05, 0.1)),
            random.choice((10, 40, 150)),
        )


class Clock:
    """The time [s since 1970], and what the clock of whoever acts says that it is."""

    def __init__(self) -> None:
        self.now = 1.8e9
        self.skew = 0.0
        """Of the current actor's clock [s]."""

    def time(self) -> float:
        """What `time.time()` says meanwhile."""
        return self.now + self.skew

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Make it the time."""
        with patch("time.time", self.time):
            yield


@dataclass(eq=False)
class Actor:
    """Something that acts step by step: a process, or a write that is still under way after its process gave up."""

    name: str
    body: greenlet
    mortal: bool
    wakes: int
    """The turn from which on it can go on."""
    ready: Callable[[], bool] | None = None
    """What it waits for."""
    skew: float = 0.0
    """Of its clock [s]."""
    crashed: bool = False
    misread: int = 0
    """Reads whose bytes came damaged."""

    @property
    def over(self) -> bool:
        """Whether it has come to an end, one way or another."""
        return self.body.dead


@dataclass
class Scheduler:
    """Who goes on next, who crashes, who pauses."""

    random: Random
    temper: Temper
    clock: Clock
    trace: list[str] | None = None
    """One line for each step, if somebody wants to read them."""
    turn: int = 0
    actors: list[Actor] = field(default_factory=list)
    current: Actor | None = None
    crashes: int = 0
    pauses: int = 0

    def spawn(self, name: str, action: Callable[[], None], *, mortal: bool = True, within: int = 0) -> Actor:
        """Add an actor; it begins in one of the next `within` turns."""
        body = greenlet(action, parent=self._main())
        actor = Actor(name, body, mortal, self.turn + self.random.randint(0, within))
        actor.skew = self.random.choice((0, 0, self.random.uniform(-100, 100)))
        self.actors.append(actor)
        return actor

    def pause(self) -> None:
        """A yield point: here others may go on."""
        if self.current is None:
            return
        if self.current.crashed:
            raise GreenletExit
        self._main().switch()

    def wait(self, ready: Callable[[], bool]) -> None:
        """Let others go on until `ready`."""
        if self.current is not None and not ready():
            self.current.ready = ready
            self.pause()

    def note(self, what: str, *about: object) -> None:
        """Say in the trace what the current actor does."""
        if self.trace is not None:
            name = self.current.name if self.current else "(nobody)"
            self.trace.append(
                f"{self.turn:5} {self.clock.now - 1.8e9:8.1f} s  {name:24} {what} {' '.join(map(str, about))}"
            )

    def run(self) -> None:
        """Let all actors come to their ends.

        Raises:
            Violation: a promise was broken, or somebody never comes to an end.
        """
        while live := [actor for actor in self.actors if not actor.over]:
            self.actors = live
            ready = [a for a in live if a.wakes <= self.turn and (a.ready is None or a.ready())]
            if not ready:
                asleep = [a.wakes for a in live if a.wakes > self.turn]
                if not asleep:
                    raise Violation(f"{live[0].name} waits for what never comes")
                self.turn = min(asleep)
                continue
            if self.current not in ready or self.random.random() < self.temper.switch:
                self.current = self.random.choice(ready)
            assert self.current
            self._step(self.current)
            if self.turn > LONGEST:
                raise Violation(f"{self.current.name} does not come to an end")
        self.current = None

    def _step(self, actor: Actor) -> None:
        self.turn += 1
        self.clock.now += self.random.random()
        self.clock.skew = actor.skew
        actor.ready = None
        actor.body.switch()
        if actor.over or not actor.mortal:
            return
        if self.random.random() < self.temper.crash:
            self.crashes += 1
            self.note("CRASHES")
            actor.crashed = True
            actor.body.throw()
        elif self.random.random() < self.temper.pause:
            self.pauses += 1
            actor.wakes = self.turn + self.random.randint(2, self.temper.longest)
            self.clock.now += self.random.choice((0, 0, 20, 100))
            self.note("pauses until turn", actor.wakes)

    @staticmethod
    def _main() -> greenlet:
        here = getcurrent()
        return here.parent or here
