"""What a launch asks of its ranks, and the entry point that torchelastic calls in each of them."""

from dataclasses import dataclass
from typing import Any

from headway.store import Holder


@dataclass(frozen=True)
class Task:
    """One launch of one run."""

    recipe: str
    """YAML."""
    run: str
    store: str
    """URL."""
    launcher: Holder
    """The process that started the ranks."""
    launched: float
    """When it began [s since 1970]: a rank's time counts from there."""
    take_over: bool
    quiet: bool


def work(task: Task, flag: Any) -> None:
    """Train on this rank. Imports late: the launcher names this function, but needs none of what it uses."""
    from headway.train.worker import train_task

    train_task(task, flag)
