"""An object store that fails in all the ways in which one on the far side of a network fails, as a seed decides."""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from random import Random

from greenlet import GreenletExit

from headway.errors import ExistingObject, StoreError
from headway.objectstore import Buffer
from headway.objectstore.protocol import Unfinished
from tests.memory import MemoryStore
from tests.simulation.invariants import Invariants
from tests.simulation.scheduler import Scheduler

WRITE_FAULTS = ("failed before", "answer lost", "under way", "echo")
"""Before it took effect; after; it will take effect later, if at all; it takes effect twice, once much later."""
CREATE_FAULTS = (*WRITE_FAULTS, "found itself", "refused", "under way")
"""And: asked again after a lost answer, so the key is taken, by itself; refused although the key is free."""
UNDER_WAY = 60
"""Turns within which a write lands that nobody waits for any more."""
SENT = 0.3
"""Share of crashes on the brink of a write that come after it was sent: it lands all the same."""


class SimulatedStore:
    """A MemoryStore behind a network. Each effect is checked as it happens."""

    url = "simulated://"

    def __init__(self, scheduler: Scheduler, random: Random, objects: dict[str, bytes], invariants: Invariants) -> None:
        """`objects`: where its objects are to be, so that others can see them without asking."""
        self.scheduler, self.random, self.invariants = scheduler, random, invariants
        self.memory = MemoryStore()
        self.memory.objects = objects
        self.rate = 0.0
        """Share of requests that go wrong."""
        self.late = 0.0
        """Share of listings that miss the last few keys."""
        self.counts: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=4)

    def quiet(self) -> None:
        """No more faults."""
        self.rate = self.late = 0

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object."""
        data = b"".join(parts)

        def effect() -> None:
            self.invariants.writes(key, data, self.memory.objects.get(key))
            self.memory.put(key, [data])
            self._recent.append(key)

        self._write("put", key, effect, WRITE_FAULTS)

    def create(self, key: str, data: Buffer) -> None:
        """Write an object, only if the key is free when the write takes effect."""
        data = bytes(data)

        def effect() -> None:
            if key in self.memory.objects:
                self.scheduler.note("  finds taken", key)
                raise ExistingObject(f"{key}: exists already in {self.url}")
            self.invariants.writes(key, data, None)
            self.memory.create(key, data)
            self._recent.append(key)

        self._write("create", key, effect, CREATE_FAULTS)

    def delete(self, key: str) -> None:
        """Remove an object."""

        def effect() -> None:
            self.invariants.deletes(key, self.memory.objects)
            self.memory.delete(key)

        self._write("delete", key, effect, WRITE_FAULTS)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or a range of it."""
        self._asked("get", key)
        data = self.memory.get(key, start, length)
        self.scheduler.pause()
        return data

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Read small objects; others may write between one and the next."""
        found: list[bytes | None] = []
        for key in keys:
            if not found:
                self._asked("get all from", key)
            elif self.random.random() < 0.1:
                self.scheduler.pause()
            found.append(self.memory.objects.get(key))
        self.scheduler.pause()
        yield from found

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object into `buffer`; now and then one of them comes over damaged."""
        self._asked("fill", key)
        length = self.memory.fill(key, buffer, start)
        if length and self.scheduler.current and self.random.random() < self.rate / 2:
            self.counts["damaged read"] += 1
            self.scheduler.note("  comes over damaged", key)
            self.scheduler.current.misread += 1
            buffer[self.random.randrange(length)] ^= 1 << self.random.randrange(8)
        self.scheduler.pause()
        return length

    def size(self, key: str) -> int:
        """Length of an object [bytes]."""
        self._asked("size", key)
        size = self.memory.size(key)
        self.scheduler.pause()
        return size

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys below `prefix`; a late listing misses some of the last few."""
        self._asked("list", prefix)
        found = list(self.memory.list(prefix, after))
        if self.random.random() < self.late:
            missed = {key for key in self._recent if self.random.random() < 0.5}
            if not missed.isdisjoint(found):
                self.counts["late listing"] += 1
                found = [key for key in found if key not in missed]
                self.scheduler.note("  is late", prefix)
        self.scheduler.pause()
        return iter(found)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Not part of the protocol that is simulated."""
        return self.memory.sizes(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """The names that follow `prefix` up to the next `/`."""
        return self.memory.folders(prefix)

    def unfinished(self) -> Iterator[Unfinished]:
        """Writes that are under way show nowhere."""
        return iter(())

    def discard(self, unfinished: Unfinished) -> None:
        """Nothing to give up."""

    def _asked(self, what: str, key: str) -> None:
        """Fail a read, now and then."""
        self.scheduler.note(what, key)
        if self.random.random() < self.rate / 4:
            self.counts["read failed"] += 1
            self.scheduler.note("  FAILS")
            raise StoreError(f"{key}: simulated: cannot be read")

    def _write(self, what: str, key: str, effect: Callable[[], None], faults: tuple[str, ...]) -> None:
        """Let a write take effect, or go wrong in one of the ways of `faults`."""
        self._set_out(what, key, effect)
        fault = self.random.choice(faults) if self.random.random() < self.rate else ""
        self.scheduler.note(what, key, fault.upper())
        if fault:
            self.counts[fault] += 1
        if fault == "refused":
            raise ExistingObject(f"{key}: simulated: refused")
        if fault == "under way":
            self._later(f"late {what}", key, effect)
        if fault in {"failed before", "under way"}:
            raise StoreError(f"{key}: simulated: nobody knows whether it was written")
        taken: ExistingObject | None = None
        try:
            effect()
        except ExistingObject as error:
            taken = error
        if fault == "echo":
            self._later(f"echo of {what}", key, effect)
        self.scheduler.pause()
        if taken:
            raise taken
        if fault == "answer lost":
            raise StoreError(f"{key}: simulated: the answer was lost")
        if fault == "found itself":
            raise ExistingObject(f"{key}: simulated: exists already, for it was asked twice")

    def _set_out(self, what: str, key: str, effect: Callable[[], None]) -> None:
        """The yield point before a write; of those who crash here, some have sent it already."""
        if self.scheduler.current and self.scheduler.current.crashed:
            raise GreenletExit
        try:
            self.scheduler.pause()
        except GreenletExit:
            if self.random.random() < SENT:
                self._later(f"crashed {what}", key, effect)
            raise

    def _later(self, name: str, key: str, effect: Callable[[], None]) -> None:
        def land() -> None:
            self.scheduler.note("LANDS", key)
            self.counts["landed late"] += 1
            with contextlib.suppress(ExistingObject):
                effect()

        self.scheduler.spawn(name, land, mortal=False, within=UNDER_WAY)
