"""Loss curves of a run by tokens, from its log. Batches that were trained again replace their first results."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from headway.events.log_line import LogLine
from headway.events.training_events import CheckpointRestored, EvaluationDone, StepDone
from headway.objectstore.protocol import Store
from headway.runs.run_log import lines_newest_first


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

    def handle(self, line: LogLine) -> None:
        """Apply one event. Ignores events that do not affect the curves."""
        attempt, tokens = line.envelope.attempt, line.envelope.tokens
        if attempt is None or tokens is None:
            return
        match line.event:
            case CheckpointRestored():
                self._undo(tokens)
            case StepDone() as step:
                self._undo(tokens - 1)
                self.points.append(Point(tokens, step.loss, step.learning_rate, step.tokens_per_second, attempt))
            case EvaluationDone(held_out=loss):
                self.held_out[tokens] = loss
            case _:
                return
        self.tokens_reached[attempt] = max(tokens, self.tokens_reached.get(attempt, 0))

    def _undo(self, above: int) -> None:
        """Drop the results above a position: they are trained again."""
        while self.points and self.points[-1].tokens > above:
            self.points.pop()
        self.held_out = {tokens: loss for tokens, loss in self.held_out.items() if tokens <= above}


def read_curve(lines: Iterable[LogLine]) -> Curve:
    """The curves of a run, from the lines of its log in order."""
    curve = Curve()
    for line in lines:
        curve.handle(line)
    return curve


def newest_losses(store: Store, run: str) -> tuple[float | None, float | None]:
    """The last logged training loss and held-out loss of a run [nats per token]; None where there is none."""
    loss = held_out = None
    for line in lines_newest_first(store, run):
        match line.event:
            case StepDone() if loss is None:
                loss = line.event.loss
            case EvaluationDone() if held_out is None:
                held_out = line.event.held_out
        if loss is not None and held_out is not None:
            break
    return loss, held_out
