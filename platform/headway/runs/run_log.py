"""The event log of a run, in chunks. Ranks write it; people, plots and reports read it. Advisory."""

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
"""A chunk is written anew with what has come since, until it is this long: few objects, and short ones."""


class LogWriter:
    """Collects an attempt's log lines and writes them as a row of objects."""

    def __init__(self, store: Store, run: str, attempt: int) -> None:
        self.store, self.run, self.attempt = store, run, attempt
        self._lines: list[str] = []
        self._written = 0
        """Lines of the present chunk that are in the store."""
        self._chunk = 0
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Take one line; nothing is written yet."""
        with self._lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Write what has come since the last flush."""
        with self._lock:  # not held while the store is asked: training must not wait for a slow one
            lines = list(self._lines)
        if len(lines) == self._written:
            return
        data = "".join(f"{line}\n" for line in lines).encode()
        self.store.put(keys.log_chunk(self.run, self.attempt, self._chunk), [data])
        self._written = len(lines)
        if len(data) >= CHUNK_BYTES:
            with self._lock:
                del self._lines[: len(lines)]
            self._chunk, self._written = self._chunk + 1, 0


LogPosition = tuple[str, int]
"""A line of a log: the key of its chunk, and its number there, from 1."""
LOG_START: LogPosition = ("", 0)


def read_events(store: Store, run: str, after: LogPosition = LOG_START) -> Iterator[tuple[LogPosition, dict[str, Any]]]:
    """A run's log events in order, each with its place, beginning after the place `after`."""
    chunk, line = after
    chunks = list(store.list(keys.log(run), after=chunk[:-1]))  # its own key included: the chunk may have grown
    for key, data in zip(chunks, store.get_all(chunks), strict=True):
        for number, text in enumerate((data or b"").decode(errors="replace").splitlines(), 1):
            if key == chunk and number <= line:
                continue
            try:
                event = json.loads(text)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield (key, number), event


def opening_events(store: Store, run: str, attempt: int) -> Iterator[Event]:
    """What an attempt said before its first step: who it is, and what it restored. Reads no more of its log."""
    for chunk in itertools.count():
        try:
            lines = _parsed(store.get(keys.log_chunk(run, attempt, chunk)))
        except MissingObject:
            return
        for event in lines:
            if event.get("event") == "step.done":
                return
            yield event


def events_newest_first(store: Store, run: str) -> Iterator[Event]:
    """A run's events, the newest first: to find a late one without reading a long log."""
    for key in reversed(list(store.list(keys.log(run)))):
        yield from reversed(_parsed(store.get(key)))


def _parsed(data: bytes) -> list[Event]:
    events: list[Event] = []
    for line in data.decode(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events
