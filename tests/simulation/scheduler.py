"""Schedules actors in one thread, in an order that a seed determines.

An actor is a greenlet that runs to its next yield point: before and after each of its writes, and after each of its
reads. There another actor may continue, and the actor may crash, or pause long enough to become a zombie.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from unittest.mock import patch

from greenlet import GreenletExit, getcurrent, greenlet

MAX_TURNS = 6000
"""Turns after which an interleaving counts as endless."""


class Violation(BaseException):
    """An invariant is violated. Not an `Exception`, so that the code under test cannot catch it."""


@dataclass(frozen=True)
class Temper:
    """Rates of switches, crashes and pauses, as shares of turns."""

    switch: float
    """Share of turns after which another actor continues."""
    crash: float
    pause: float
    longest_pause: int
    """Longest pause [turns]."""

    @classmethod
    def draw(cls, random: Random) -> "Temper":
        """Draw random rates."""
        return cls(
            random.choice((0.05, 0.2, 0.5, 1.0)),
            random.choice((0.0, 0.002, 0.01, 0.03)),
            random.choice((0.0, 0.01, 0.05, 0.1)),
            random.choice((10, 40, 150)),
        )


class Clock:
    """Simulated time, and the skewed clock of the current actor."""

    def __init__(self) -> None:
        self.now = 1.8e9
        self.skew = 0.0
        """Error of the current actor's clock [s]."""

    def time(self) -> float:
        """Replaces `time.time`."""
        return self.now + self.skew

    def sleep(self, seconds: float) -> None:
        """Replaces `time.sleep`: advances the time of all actors."""
        self.now += seconds

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Patch the time module during the block."""
        with patch("time.time", self.time), patch("time.sleep", self.sleep):
            yield


@dataclass(eq=False)
class Actor:
    """A process, or a write that is still in flight after its process gave up."""

    name: str
    body: greenlet
    mortal: bool
    wakes: int
    """First turn in which it may continue."""
    ready: Callable[[], bool] | None = None
    """Condition that it waits for."""
    skew: float = 0.0
    """Error of its clock [s]."""
    crashed: bool = False
    misread: int = 0
    """Number of its reads that returned damaged bytes."""

    @property
    def over(self) -> bool:
        """Whether it has ended or crashed."""
        return self.body.dead

    def end(self) -> None:
        """Crash it unless it is over: an actor that is merely forgotten would keep the locks that it holds."""
        self.crashed = True
        if not self.over:
            self.body.throw()


@dataclass
class Scheduler:
    """Decides which actor continues, crashes or pauses."""

    random: Random
    temper: Temper
    clock: Clock
    trace: list[str] | None = None
    """One line per step; None for no trace."""
    turn: int = 0
    actors: list[Actor] = field(default_factory=list)
    current: Actor | None = None
    crashes: int = 0
    pauses: int = 0

    def spawn(self, name: str, action: Callable[[], None], *, mortal: bool = True, within: int = 0) -> Actor:
        """Add an actor that starts in one of the next `within` turns."""
        body = greenlet(action, parent=self._main())
        actor = Actor(name, body, mortal, self.turn + self.random.randint(0, within))
        actor.skew = self.random.choice((0, 0, self.random.uniform(-100, 100)))
        self.actors.append(actor)
        return actor

    def pause(self) -> None:
        """Yield: other actors may continue here."""
        if self.current is None:
            return
        if self.current.crashed:
            raise GreenletExit
        self._main().switch()

    def wait(self, ready: Callable[[], bool]) -> None:
        """Let other actors continue until `ready` returns True."""
        if self.current is not None and not ready():
            self.current.ready = ready
            self.pause()

    def note(self, what: str, *about: object) -> None:
        """Add a line to the trace about the current actor."""
        if self.trace is not None:
            name = self.current.name if self.current else "(none)"
            self.trace.append(
                f"{self.turn:5} {self.clock.now - 1.8e9:8.1f} s  {name:24} {what} {' '.join(map(str, about))}"
            )

    def run(self) -> None:
        """Run all actors to their ends.

        Raises:
            Violation: an invariant is violated, or an actor never ends.
        """
        try:
            self._run()
        finally:
            for actor in self.actors:
                self.current = actor
                actor.end()
            self.current = None

    def _run(self) -> None:
        while live := [actor for actor in self.actors if not actor.over]:
            self.actors = live
            ready = [a for a in live if a.wakes <= self.turn and (a.ready is None or a.ready())]
            if not ready:
                asleep = [a.wakes for a in live if a.wakes > self.turn]
                if not asleep:
                    raise Violation(f"{live[0].name} waits forever")
                self.turn = min(asleep)
                continue
            if self.current not in ready or self.random.random() < self.temper.switch:
                self.current = self.random.choice(ready)
            assert self.current
            self._step(self.current)
            if self.turn > MAX_TURNS:
                raise Violation(f"{self.current.name} does not end")

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
            actor.wakes = self.turn + self.random.randint(2, self.temper.longest_pause)
            self.clock.now += self.random.choice((0, 0, 20, 100))
            self.note("pauses until turn", actor.wakes)

    @staticmethod
    def _main() -> greenlet:
        current = getcurrent()
        return current.parent or current
