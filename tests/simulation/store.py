"""An object store with the faults of one behind a network, determined by a seed."""

import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from random import Random

from greenlet import GreenletExit

from headway.errors import ExistingObject, StoreError
from headway.objectstore import Buffer
from headway.objectstore.protocol import UnfinishedWrite
from tests.memory import MemoryStore
from tests.simulation.invariants import Invariants
from tests.simulation.scheduler import Scheduler

WRITE_FAULTS = ("failed before", "answer lost", "under way", "echo")
"""A write fails before its effect; after it; takes effect later, if at all; takes effect twice, once much later."""
CREATE_FAULTS = (*WRITE_FAULTS, "found itself", "refused", "under way")
"""Faults of a create. Besides: a retry after a lost response finds its own object; refused although the key is free."""
UNDER_WAY = 60
"""Turns within which a write in flight takes effect."""
SENT_SHARE = 0.3
"""Share of crashes before a write in which the write was already sent and takes effect."""


class SimulatedStore:
    """A `MemoryStore` behind a faulty network. The invariants check each effect as it happens."""

    url = "simulated://"
    readers = 1

    def __init__(self, scheduler: Scheduler, random: Random, objects: dict[str, bytes], invariants: Invariants) -> None:
        """The store keeps its objects in `objects`, which others may read directly."""
        self.scheduler, self.random, self.invariants = scheduler, random, invariants
        self.memory = MemoryStore()
        self.memory.objects = objects
        self.rate = 0.0
        """Share of requests with a fault."""
        self.late = 0.0
        """Share of listings that may miss the newest keys."""
        self.counts: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=4)

    def quiet(self) -> None:
        """Stop all faults."""
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
        self._read_fault("get", key)
        data = self.memory.get(key, start, length)
        self.scheduler.pause()
        return data

    def get_all(self, keys: Iterable[str], limit: int) -> Iterator[bytes | None]:
        """Read small objects; other actors may write in between."""
        bodies: list[bytes | None] = []
        for key in keys:
            if not bodies:
                self._read_fault("get all from", key)
            elif self.random.random() < 0.1:
                self.scheduler.pause()
            bodies += self.memory.get_all([key], limit)
        self.scheduler.pause()
        yield from bodies

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object into `buffer`, sometimes with one bit flipped."""
        self._read_fault("fill", key)
        length = self.memory.fill(key, buffer, start)
        if length and self.scheduler.current and self.random.random() < self.rate / 2:
            self.counts["damaged read"] += 1
            self.scheduler.note("  is damaged in transit", key)
            self.scheduler.current.misread += 1
            buffer[self.random.randrange(length)] ^= 1 << self.random.randrange(8)
        self.scheduler.pause()
        return length

    def size(self, key: str) -> int:
        """Length of an object [bytes]."""
        self._read_fault("size", key)
        size = self.memory.size(key)
        self.scheduler.pause()
        return size

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys below `prefix`; a late listing misses some of the newest."""
        self._read_fault("list", prefix)
        listed = list(self.memory.list(prefix, after))
        if self.random.random() < self.late:
            missed = {key for key in self._recent if self.random.random() < 0.5}
            if not missed.isdisjoint(listed):
                self.counts["late listing"] += 1
                listed = [key for key in listed if key not in missed]
                self.scheduler.note("  is late", prefix)
        self.scheduler.pause()
        return iter(listed)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys with lengths, without faults."""
        return self.memory.sizes(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """Names between `prefix` and the next `/`."""
        return self.memory.folders(prefix)

    def strays(self, _prefix: str, *, deep: bool = True) -> Iterator[tuple[str, str]]:
        """Nothing but objects is ever here."""
        del deep
        return iter(())

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """Writes in flight are not listed."""
        return iter(())

    def abort(self, write: UnfinishedWrite) -> None:
        """Do nothing."""

    def _read_fault(self, what: str, key: str) -> None:
        """Fail a read at random."""
        self.scheduler.note(what, key)
        if self.random.random() < self.rate / 4:
            self.counts["read failed"] += 1
            self.scheduler.note("  FAILS")
            raise StoreError(f"{key}: simulated: cannot be read")

    def _write(self, what: str, key: str, effect: Callable[[], None], faults: tuple[str, ...]) -> None:
        """Let a write take effect, or go wrong with one of `faults`."""
        self._before_write(what, key, effect)
        fault = self.random.choice(faults) if self.random.random() < self.rate else ""
        self.scheduler.note(what, key, fault.upper())
        if fault:
            self.counts[fault] += 1
        if fault == "refused":
            raise ExistingObject(f"{key}: simulated: refused")
        if fault == "under way":
            self._later(f"late {what}", key, effect)
        if fault in {"failed before", "under way"}:
            raise StoreError(f"{key}: simulated: unknown whether it was written")
        conflict: ExistingObject | None = None
        try:
            effect()
        except ExistingObject as error:
            conflict = error
        if fault == "echo":
            self._later(f"echo of {what}", key, effect)
        self.scheduler.pause()
        if conflict:
            raise conflict
        if fault == "answer lost":
            raise StoreError(f"{key}: simulated: the response was lost")
        if fault == "found itself":
            raise ExistingObject(f"{key}: simulated: exists already, by an earlier try")

    def _before_write(self, what: str, key: str, effect: Callable[[], None]) -> None:
        """Yield before a write. Some actors that crash here have already sent it."""
        if self.scheduler.current and self.scheduler.current.crashed:
            raise GreenletExit
        try:
            self.scheduler.pause()
        except GreenletExit:
            if self.random.random() < SENT_SHARE:
                self._later(f"crashed {what}", key, effect)
            raise

    def _later(self, name: str, key: str, effect: Callable[[], None]) -> None:
        def land() -> None:
            self.scheduler.note("LANDS", key)
            self.counts["landed late"] += 1
            with contextlib.suppress(ExistingObject):
                effect()

        self.scheduler.spawn(name, land, mortal=False, within=UNDER_WAY)
