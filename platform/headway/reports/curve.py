"""How training went, by tokens: read from a run's log, where what a later attempt trained again replaces the first."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from headway.objectstore.protocol import Store
from headway.runs.run_log import Event, events_newest_first


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


def newest_losses(store: Store, run: str) -> tuple[float | None, float | None]:
    """The last training loss and the last held-out loss that a run told of [nats per token]."""
    found: dict[str, float] = {}
    for event in events_newest_first(store, run):
        for name, key in (("step.done", "loss"), ("evaluation.done", "held_out")):
            if event.get("event") == name:
                found.setdefault(key, event[key])
        if len(found) == 2:
            break
    return found.get("loss"), found.get("held_out")
