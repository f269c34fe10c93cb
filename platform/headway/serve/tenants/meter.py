"""Sliding-window meter of what tenants use: counters by minute, of which the last two count.

Usage of the previous minute fades linearly while the current one passes, so a quota never comes back all at once (the
sliding window counter of `limits`, whose storage keeps the counters and deletes old ones). The strategies of `limits`
do not fit: they reject whatever exceeds a limit and refund nothing, so a charge could not be corrected when the
response ends; and they forget the usage when a limit changes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_SECONDS = 60
"""Length of a window [s]."""


@dataclass
class Charge:
    """Units charged for one request under one name; the amount can be adjusted later."""

    name: str
    """Name that the meter counts under."""
    parts: list[tuple[str, int]] = field(default_factory=list)
    """Counters that hold the units, and how many each holds."""

    @property
    def amount(self) -> int:
        """Units charged in all."""
        return sum(amount for _, amount in self.parts)


@dataclass(frozen=True)
class Usage:
    """Usage under a name at one moment."""

    previous: int
    """Units counted in the previous window."""
    current: int
    """Units counted in the current window."""
    remaining_seconds: float
    """Time until the current window ends [s]."""

    @property
    def total(self) -> float:
        """Units that count now: all of the current window, and the faded rest of the previous one."""
        return self.previous * self.remaining_seconds / WINDOW_SECONDS + self.current

    def seconds_until(self, limit: int) -> float:
        """Seconds until the total falls to `limit` if nothing is added; 0 if it is there already."""
        if self.total <= limit:
            return 0.0
        if self.current <= limit:  # within the current window
            return max(0.0, self.remaining_seconds - WINDOW_SECONDS * (limit - self.current) / self.previous)
        return self.remaining_seconds + WINDOW_SECONDS * (1 - limit / self.current)


class Meter:
    """Counts units under names, in the memory of this process.

    The counters are in memory, so no `await` here really waits, and no other task runs between a check and a charge.
    The library's blocking storage would be slower: its cleanup thread costs a request up to 2 ms.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: any that only moves forward [s]."""
        from limits.aio.storage import MemoryStorage  # 0.1 s to import, too slow for the command line

        self._clock, self._counters = clock, MemoryStorage()

    async def charge(self, name: str, amount: int) -> Charge:
        """Count `amount` under `name`, even beyond a limit."""
        charge = Charge(name)
        await self.adjust(charge, amount)
        return charge

    async def adjust(self, charge: Charge, amount: int) -> None:
        """Change a charge to `amount`. Counts more in the current window; refunds in the windows that were charged."""
        difference = amount - charge.amount
        if difference > 0:
            key = _key(charge.name, _window(self._clock()))
            charge.parts.append((key, difference))
            await self._counters.incr(key, 2 * WINDOW_SECONDS, difference)
        while difference < 0:
            key, part = charge.parts.pop()
            refund = min(part, -difference)
            if refund < part:
                charge.parts.append((key, part - refund))
            difference += refund
            if await self._counters.get(key):  # an expired counter needs no refund
                await self._counters.decr(key, refund)

    async def usage(self, name: str) -> Usage:
        """Usage under `name` now."""
        seconds = self._clock()
        window = _window(seconds)
        previous = await self._counters.get(_key(name, window - 1))
        current = await self._counters.get(_key(name, window))
        return Usage(previous, current, (window + 1) * WINDOW_SECONDS - seconds)


def _window(seconds: float) -> int:
    return int(seconds // WINDOW_SECONDS)


def _key(name: str, window: int) -> str:
    return f"{name}/{window}"
