"""A run's record of itself: log chunks and the ledger. Read by people and plots; nothing correct depends on it."""

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from headway.errors import MissingObject, StoreError
from headway.store import keys
from headway.store.objects import Store

PHASES = ("queue", "startup", "restore", "data", "step", "checkpoint", "evaluation", "drain", "lost")
"""What every second of a rank is booked to."""


class LogWriter:
    """Collects an attempt's log lines and writes them as a row of small objects."""

    def __init__(self, store: Store, run: str, attempt: int) -> None:
        self.store, self.run, self.attempt = store, run, attempt
        self._lines: list[str] = []
        self._chunk = 0
        self._lock = threading.Lock()

    def add(self, line: str) -> None:
        """Take one line; nothing is written yet."""
        with self._lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Write what has come since the last flush."""
        with self._lock:  # not held while the store is asked: training must not wait for a slow one
            lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            data = "".join(f"{line}\n" for line in lines).encode()
            self.store.put(keys.log_chunk(self.run, self.attempt, self._chunk), [data])
            self._chunk += 1
        except StoreError:
            with self._lock:
                self._lines = lines + self._lines
            raise


def events(store: Store, run: str, after: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A run's log events in order, each with the key of its chunk, beginning after the chunk `after`."""
    for key in store.list(keys.log(run), after=after):
        for line in store.get(key).decode(errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield key, event


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
