"""A run's record of itself: log chunks and the ledger. Read by people and plots; nothing correct depends on it."""

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from headway.errors import MissingObject
from headway.store import keys
from headway.store.objects import Store

PHASES = ("queue", "startup", "restore", "data", "step", "checkpoint", "evaluation", "drain", "lost")
"""What every second of a rank is booked to."""


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


Place = tuple[str, int]
"""A line of a log: the key of its chunk, and its number there, from 1."""
BEGINNING: Place = ("", 0)


def events(store: Store, run: str, after: Place = BEGINNING) -> Iterator[tuple[Place, dict[str, Any]]]:
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


class Row(BaseModel):
    """Where the time of one rank of one attempt went."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    rank: int
    started: float
    """Seconds since 1970."""
    until: float
    """Up to when the phases account [seconds since 1970]."""
    phases: Mapping[str, float]
    """Seconds by phase."""
    tokens: int


def ledger(store: Store, run: str, attempt: int) -> list[Row]:
    """The rows of an attempt, as of its last commit or its end."""
    try:
        text = store.get(keys.ledger(run, attempt)).decode()
    except MissingObject:
        return []
    return [Row.model_validate_json(line) for line in text.splitlines()]
