"""Memory that many hold on to at once, and that has an end."""

from collections.abc import Iterator
from contextlib import contextmanager


class Lease:
    """What one holds of a room."""

    def __init__(self, room: "MemoryBudget") -> None:
        self._room = room
        self.size = 0

    def grow(self, size: int) -> bool:
        """Hold `size` bytes at least from now on; False: there is no room for so many."""
        more = size - self.size
        if more <= 0:
            return True
        if more > self._room.left:
            return False
        self._room.left -= more
        self.size = size
        return True

    def release(self) -> None:
        """Hold nothing any more."""
        self._room.left += self.size
        self.size = 0


class MemoryBudget:
    """So many bytes, and no more, for all together."""

    def __init__(self, size: int) -> None:
        self.left = size

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """A share, empty at first, which is given back at the end."""
        share = Lease(self)
        try:
            yield share
        finally:
            share.release()
