"""The event log of a run: JSON lines in chunks. Rank 0 writes it; people, plots and reports read it. Advisory."""

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from headway import strict_json
from headway.errors import MissingObject
from headway.events.log_line import LogLine
from headway.events.training_events import StepDone
from headway.objectstore.protocol import Store
from headway.runs import keys

Record = Mapping[str, Any]
"""One line of the log as it is stored, whoever wrote it."""
LOG_CHUNK_BYTES = 16 << 20
"""Longest chunk that is read [bytes]; of a longer one, this much."""
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
        while self._flush_chunk():  # several, if a store was away for long
            pass

    def _flush_chunk(self) -> bool:
        """Write the current chunk, if it has new lines; returns whether it is complete."""
        with self._lock:  # not held during the request: training must not wait for a slow store
            lines = [f"{line}\n".encode() for line in self._lines]
        if len(lines) == self._flushed:
            return False
        ends = enumerate(itertools.accumulate(map(len, lines)), 1)
        count = next((number for number, end in ends if end >= LOG_CHUNK_BYTES // 2), len(lines))
        data = b"".join(lines[:count])
        self.store.put(keys.log_chunk(self.run, self.attempt, self._chunk), [data])
        self._flushed = count
        if len(data) < CHUNK_BYTES:
            return False
        with self._lock:
            del self._lines[:count]
        self._chunk, self._flushed = self._chunk + 1, 0
        return True


LogPosition = tuple[str, int]
"""Position of a line in a log: the key of its chunk, and its number in the chunk, from 1."""
LOG_START: LogPosition = ("", 0)
"""Position before the first line."""


def read_records(store: Store, run: str, after: LogPosition = LOG_START) -> Iterator[tuple[LogPosition, Record]]:
    """Read the lines of a run's log after a position as they are stored, in order, each with its own position."""
    last_chunk, last_line = after
    chunks = _chunks(store, run, after=last_chunk[:-1])  # includes the chunk itself: it may have grown
    for key, data in zip(chunks, store.get_all(chunks, LOG_CHUNK_BYTES), strict=True):
        for number, record in _records(data or b""):
            if key != last_chunk or number > last_line:
                yield (key, number), record


def read_lines(store: Store, run: str) -> Iterator[LogLine]:
    """Read a run's events in order."""
    return _lines(record for _, record in read_records(store, run))


def opening_lines(store: Store, run: str, attempt: int) -> Iterator[LogLine]:
    """Read an attempt's events before its first step. Reads no chunk beyond them."""
    for chunk in itertools.count():
        try:
            data = store.get(keys.log_chunk(run, attempt, chunk), 0, LOG_CHUNK_BYTES)
        except MissingObject:
            return
        for line in _lines(record for _, record in _records(data)):
            if isinstance(line.event, StepDone):
                return
            yield line


def lines_newest_first(store: Store, run: str) -> Iterator[LogLine]:
    """Read a run's events from the newest on. Reads as many chunks as the caller consumes."""
    for key in reversed(_chunks(store, run)):
        yield from _lines(record for _, record in reversed(list(_records(store.get(key, 0, LOG_CHUNK_BYTES)))))


def _chunks(store: Store, run: str, after: str = "") -> list[str]:
    """Keys of the chunks of a run's log, in order. What else lies among them is no part of it."""
    return [key for key in store.list(keys.log(run), after=after) if keys.is_of_run(run, key)]


def _lines(records: Iterable[Record]) -> Iterator[LogLine]:
    """The lines that this version knows and that fit."""
    return (line for record in records if (line := LogLine.parse(record)))


def _records(chunk: bytes) -> Iterator[tuple[int, Record]]:
    """The lines of a chunk with their numbers, from 1. Skips lines that are no JSON objects."""
    for number, line in enumerate(chunk.decode(errors="replace").splitlines(), 1):
        try:
            record = strict_json.parse(line.encode(), nan=True)  # a loss may be NaN
        except ValueError:
            continue
        if isinstance(record, dict):
            yield number, record
