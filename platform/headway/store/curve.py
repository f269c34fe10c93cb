"""How training went, by tokens: read from a run's log, where what a later attempt trained again replaces the first."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headway.errors import MissingObject
from headway.store import keys
from headway.store.objects import Store

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One batch that was trained on."""

    tokens: int
    """Consumed, this batch included."""
    loss: float
    """Mean over the batch [nats per token]."""
    learning_rate: float
    tokens_per_second: float
    attempt: int


@dataclass
class Curve:
    """A run by tokens."""

    points: list[Point] = field(default_factory=list)
    """In order of tokens, one for each batch."""
    held_out: dict[int, float] = field(default_factory=dict)
    """Held-out loss by tokens [nats per token]."""
    reached: dict[int, int] = field(default_factory=dict)
    """Tokens that each attempt got to, committed or not."""

    def take(self, event: Event) -> None:
        """Go on by one event; those that say nothing of the curve are passed over."""
        name, attempt, tokens = event.get("event"), event.get("attempt"), event.get("tokens")
        if not isinstance(attempt, int) or not isinstance(tokens, int):
            return
        if name == "checkpoint.restored":
            self._undo(tokens)
        elif name == "step.done":
            self._undo(tokens - 1)
            self.points.append(
                Point(tokens, event["loss"], event["learning_rate"], event["tokens_per_second"], attempt)
            )
        elif name == "evaluation.done":
            self.held_out[tokens] = event["held_out"]
        else:
            return
        self.reached[attempt] = max(tokens, self.reached.get(attempt, 0))

    def _undo(self, above: int) -> None:
        """Forget what was trained above a position: it is trained again."""
        while self.points and self.points[-1].tokens > above:
            self.points.pop()
        self.held_out = {tokens: loss for tokens, loss in self.held_out.items() if tokens <= above}


def curve(events: Iterable[Event]) -> Curve:
    """The curve of a run, from its events in order."""
    drawn = Curve()
    for event in events:
        drawn.take(event)
    return drawn


def opening(store: Store, run: str, attempt: int) -> Iterator[Event]:
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


def backwards(store: Store, run: str) -> Iterator[Event]:
    """A run's events, the newest first: to find a late one without reading a long log."""
    for key in reversed(list(store.list(keys.log(run)))):
        yield from reversed(_parsed(store.get(key)))


def newest_losses(store: Store, run: str) -> tuple[float | None, float | None]:
    """The last training loss and the last held-out loss that a run told of [nats per token]."""
    found: dict[str, float] = {}
    for event in backwards(store, run):
        for name, key in (("step.done", "loss"), ("evaluation.done", "held_out")):
            if event.get("event") == name:
                found.setdefault(key, event[key])
        if len(found) == 2:
            break
    return found.get("loss"), found.get("held_out")


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
