"""The progress bar of a terminal, with the other events above it."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as Remaining
from rich.text import Text

from headway.events.event import LogEvent
from headway.events.training_events import StepDone, TrainingEvent
from headway.output_text import one_line

UNITS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))


class TokensColumn(ProgressColumn):
    """Tokens done and budget, in the budget's unit."""

    def render(self, task: Task) -> Text:
        """Render the column of `task`."""
        budget = task.total or 0
        unit, name = next(((u, n) for u, n in UNITS if budget >= u), (1, ""))
        return Text(f"{task.completed / unit:,.1f}/{budget / unit:,.1f}{name} tokens")


class ProgressBar:
    """Shows the steps of an attempt as a bar, and prints its other events. The log prints the warnings."""

    def __init__(self, budget: int) -> None:
        """`budget`: tokens of the whole run."""
        self.progress = Progress(
            BarColumn(bar_width=20),
            TokensColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            Remaining(),
            console=Console(stderr=True),
        )
        self._task = self.progress.add_task("training", total=budget, loss="-", speed="-")

    def start(self) -> None:
        """Show the bar."""
        self.progress.start()

    def close(self) -> None:
        """Leave the bar as it is."""
        self.progress.stop()

    def handle(self, event: TrainingEvent, tokens: int) -> None:
        """Move the bar, or print the event."""
        if isinstance(event, StepDone):
            speed = f"{event.tokens_per_second:,.0f}"
            self.progress.update(self._task, completed=tokens, loss=f"{event.loss:.3f}", speed=speed)
        elif isinstance(event, LogEvent) and event.level == "info":
            details = one_line(" ".join(f"{key}={value}" for key, value in event.fields().items()))
            self.progress.console.print(Text.assemble((event.name, "dim"), f" at {tokens:,} tokens {details}"))
