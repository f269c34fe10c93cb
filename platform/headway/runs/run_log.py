"""The event log of a run: JSON lines in chunks. Rank 0 writes it; people, plots and reports read it. Advisory."""

import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from headway.errors import MissingObject
from headway.objectstore.protocol import Store
from headway.runs import keys

Event = Mapping[str, Any]
"""One line of the log."""
CHUNK_BYTES = 256 * 1024
"""Size from which on a chunk is complete [bytes]. Until then each flush rewrites it, so there are few objects."""


class LogWriter:
    """Collects the log lines of one attempt and writes them as a sequence of objects."""

    def __init__(self, store: Store, run: str, attempt: int) -> None:
        self.store, self.run, self.attempt = store, run, attempt
        self._lines: list[str] = []
        """Lines of the current chunk."""
        self._flushed = 0
        """Lines of the current chunk that are in the store."""
        self._chunk = 0
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Add one line. Writes nothing yet."""
        with self._lock:
            self._lines.append(line)

    @property
    def pending(self) -> bool:
        """Whether lines have come since the last flush."""
        return len(self._lines) > self._flushed

    def flush(self) -> None:
        """Write the lines that have come since the last flush."""
        with self._lock:  # not held during the request: training must not wait for a slow store
            lines = list(self._lines)
        if len(lines) == self._flushed:
            return
        data = "".join(f"{line}\n" for line in lines).encode()
        self.store.put(keys.log_chunk(self.run, self.attempt, self._chunk), [data])
        self._flushed = len(lines)
        if len(data) >= CHUNK_BYTES:
            with self._lock:
                del self._lines[: len(lines)]
            self._chunk, self._flushed = self._chunk + 1, 0


LogPosition = tuple[str, int]
"""Position of a line in a log: the key of its chunk, and its number in the chunk, from 1."""
LOG_START: LogPosition = ("", 0)
"""Position before the first line."""


def read_events(store: Store, run: str, after: LogPosition = LOG_START) -> Iterator[tuple[LogPosition, Event]]:
    """Read a run's events after a position, in order, each with its own position."""
    last_chunk, last_line = after
    chunks = list(store.list(keys.log(run), after=last_chunk[:-1]))  # includes the chunk itself: it may have grown
    for key, data in zip(chunks, store.get_all(chunks), strict=True):
        for number, event in _parse(data or b""):
            if key != last_chunk or number > last_line:
                yield (key, number), event


def opening_events(store: Store, run: str, attempt: int) -> Iterator[Event]:
    """Read an attempt's events before its first step. Reads no chunk beyond them."""
    for chunk in itertools.count():
        try:
            data = store.get(keys.log_chunk(run, attempt, chunk))
        except MissingObject:
            return
        for _, event in _parse(data):
            if event.get("event") == "step.done":
                return
            yield event


def events_newest_first(store: Store, run: str) -> Iterator[Event]:
    """Read a run's events from the newest on. Reads as many chunks as the caller consumes."""
    for key in reversed(list(store.list(keys.log(run)))):
        for _, event in reversed(list(_parse(store.get(key)))):
            yield event


def _parse(chunk: bytes) -> Iterator[tuple[int, Event]]:
    """The events of a chunk with their line numbers, from 1. Skips lines that are no JSON objects."""
    for number, line in enumerate(chunk.decode(errors="replace").splitlines(), 1):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield number, event
