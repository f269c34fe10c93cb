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

    async def used(self, name: str) -> float:
        """What counts now."""
        before, now, left = await self._state(name)
        return before * left / WINDOW_SECONDS + now

    async def wait(self, name: str, room: int) -> float:
        """In how many seconds no more than `room` counts, if nothing is added; 0: it is so now."""
        before, now, left = await self._state(name)
        if before * left / WINDOW_SECONDS + now <= room:
            return 0.0
        if now <= room:  # still in this minute
            return max(0.0, left - WINDOW_SECONDS * (room - now) / before)
        return left + WINDOW_SECONDS * (1 - room / now)

    async def _state(self, name: str) -> tuple[int, int, float]:
        """What was counted in the minute before and in this one, and what is left of this one [s]."""
        seconds = self._clock()
        minute = _minute(seconds)
        before = await self._counters.get(_key(name, minute - 1))
        now = await self._counters.get(_key(name, minute))
        return before, now, (minute + 1) * WINDOW_SECONDS - seconds


def _minute(seconds: float) -> int:
    return int(seconds // WINDOW_SECONDS)


def _key(name: str, minute: int) -> str:
    return f"{name}/{minute}"
