"""Memory that many hold on to at once, and that has an end."""

from collections.abc import Iterator
from contextlib import contextmanager


class Share:
    """What one holds of a room."""

    def __init__(self, room: "Room") -> None:
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

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._room.left += self.size
        self.size = 0


class Room:
    """So many bytes, and no more, for all together."""

    def __init__(self, size: int) -> None:
        self.left = size

    @contextmanager
    def share(self) -> Iterator[Share]:
        """A share, empty at first, which is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            share.give_back()
