"""Shared byte budget for buffered request bodies."""

from types import TracebackType
from typing import Self


class MemoryBudget:
    """A number of bytes that several holders share."""

    def __init__(self, size: int) -> None:
        """`size`: all of it [bytes]."""
        self.free = size
        """Bytes that no lease holds."""

    def lease(self) -> "Lease":
        """Give out a lease, empty at first; as a context manager it is released at the end of the block."""
        return Lease(self)


class Lease:
    """The part of a budget that one holder uses."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.size = 0
        """Bytes that it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

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
