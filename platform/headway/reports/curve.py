"""Loss curves of a run by tokens, from its log. Batches that were trained again replace their first results."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from headway.objectstore.protocol import Store
from headway.runs.run_log import Event, events_newest_first


@dataclass(frozen=True)
class Point:
    """A training step on the curve of a run."""

    tokens: int
    """Tokens consumed, including this batch."""
    loss: float
    """Mean loss over the batch [nats per token]."""
    learning_rate: float
    tokens_per_second: float
    attempt: int


@dataclass
class Curve:
    """The curves of one run."""

    points: list[Point] = field(default_factory=list)
    """One point per batch, in order of tokens."""
    held_out: dict[int, float] = field(default_factory=dict)
    """Held-out loss by tokens [nats per token]."""
    tokens_reached: dict[int, int] = field(default_factory=dict)
    """Tokens that each attempt reached, committed or not."""

    def handle(self, event: Event) -> None:
        """Apply one event. Ignores events that do not affect the curves."""
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
        self.tokens_reached[attempt] = max(tokens, self.tokens_reached.get(attempt, 0))

    def _undo(self, above: int) -> None:
        """Drop the results above a position: they are trained again."""
        while self.points and self.points[-1].tokens > above:
            self.points.pop()
        self.held_out = {tokens: loss for tokens, loss in self.held_out.items() if tokens <= above}


def read_curve(events: Iterable[Event]) -> Curve:
    """The curves of a run, from its events in order."""
    curve = Curve()
    for event in events:
        curve.handle(event)
    return curve


def newest_losses(store: Store, run: str) -> tuple[float | None, float | None]:
    """The last logged training loss and held-out loss of a run [nats per token]; None where there is none."""
    losses: dict[str, float] = {}
    for event in events_newest_first(store, run):
        for name, key in (("step.done", "loss"), ("evaluation.done", "held_out")):
            if event.get("event") == name:
                losses.setdefault(key, event[key])
        if len(losses) == 2:
            break
    return losses.get("loss"), losses.get("held_out")
