"""What tenants have used of late: counters by the minute, of which the last two count.

What was used in the minute before fades evenly while this one passes, so that a quota is never given back all at once
(the sliding window counter of `limits`, whose storage keeps the counters and clears old ones away). Its own strategies
refuse whatever is above a limit and take nothing back, so that what only an answer's end tells could not be settled;
and they forget what was used once a limit changes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_SECONDS = 60
"""What a minute is [s]."""


@dataclass
class Charge:
    """What was charged for one request, until it is settled."""

    name: str
    """Of whom, and for what."""
    parts: list[tuple[str, int]] = field(default_factory=list)
    """The counters that it stands in, and how much of it stands there."""

    @property
    def amount(self) -> int:
        """All of it."""
        return sum(amount for _, amount in self.parts)


@dataclass(frozen=True)
class Level:
    """What counts at a moment."""

    before: int
    """Counted in the minute before."""
    now: int
    """Counted in this one."""
    left: float
    """Of this one [s]."""

    @property
    def used(self) -> float:
        """All of it, what was before fading."""
        return self.before * self.left / WINDOW_SECONDS + self.now

    def wait(self, room: int) -> float:
        """In how many seconds no more than `room` counts, if nothing is added; 0: it is so now."""
        if self.used <= room:
            return 0.0
        if self.now <= room:  # still in this minute
            return max(0.0, self.left - WINDOW_SECONDS * (room - self.now) / self.before)
        return self.left + WINDOW_SECONDS * (1 - room / self.now)


class Meter:
    """Counts what is used under names. Its state is this process's own.

    Nothing here really waits (the counters are in memory), so that nothing comes between a question and a charge. The
    library's blocking storage would be no quicker: it starts a thread to clear up, which costs a request up to 2 ms.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` [s] only has to go on."""
        from limits.aio.storage import MemoryStorage  # takes a tenth of a second, which the command line has not

        self._clock, self._counters = clock, MemoryStorage()

    async def charge(self, name: str, amount: int) -> Charge:
        """Count `amount`, whether there is room for it or not."""
        charge = Charge(name)
        await self.settle(charge, amount)
        return charge

    async def settle(self, charge: Charge, amount: int) -> None:
        """Have it be `amount` in the end: the rest is counted now, or what is too much given back where it stands."""
        more = amount - charge.amount
        if more > 0:
            key = _key(charge.name, _minute(self._clock()))
            charge.parts.append((key, more))
            await self._counters.incr(key, 2 * WINDOW_SECONDS, more)
        while more < 0:
            key, part = charge.parts.pop()
            back = min(part, -more)
            if back < part:
                charge.parts.append((key, part - back))
            more += back
            if await self._counters.get(key):  # what was long ago does not count any more
                await self._counters.decr(key, back)

    async def level(self, name: str) -> Level:
        """What counts now."""
        seconds = self._clock()
        minute = _minute(seconds)
        before = await self._counters.get(_key(name, minute - 1))
        now = await self._counters.get(_key(name, minute))
        return Level(before, now, (minute + 1) * WINDOW_SECONDS - seconds)


def _minute(seconds: float) -> int:
    return int(seconds // WINDOW_SECONDS)


def _key(name: str, minute: int) -> str:
    return f"{name}/{minute}"
