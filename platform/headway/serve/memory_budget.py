"""Shared byte budget for buffered request bodies."""

from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """A number of bytes that several holders share."""

    def __init__(self, size: int) -> None:
        """`size`: all of it [bytes]."""
        self.free = size
        """Bytes that no lease holds."""

    @contextmanager
    def lease(self) -> Iterator["Lease"]:
        """Give out a lease, empty at first, and release it at the end of the block."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.release()


class Lease:
    """The part of a budget that one holder uses."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.size = 0
        """Bytes that it holds."""

    def grow(self, size: int) -> bool:
        """Grow to at least `size` bytes; False if the budget has too few."""
        growth = size - self.size
        if growth <= 0:
            return True
        if growth > self._budget.free:
            return False
        self._budget.free -= growth
        self.size = size
        return True

    def release(self) -> None:
        """Return all bytes to the budget."""
        self._budget.free += self.size
        self.size = 0
