"""The bus of training events: an attempt emits them, the sinks subscribe."""

from collections.abc import Callable

from headway.events.training_events import TrainingEvent

Handler = Callable[[TrainingEvent, int], object]
"""Handles an event at a position [tokens]."""


class EventBus:
    """Passes each event of one rank to its sinks, in the order of their subscriptions."""

    def __init__(self) -> None:
        self.tokens = 0
        """Position of the attempt [tokens]."""
        self._handlers: list[Handler] = []

    def subscribe(self, handler: Handler) -> None:
        """Have `handler` handle all events from now on."""
        self._handlers.append(handler)

    def emit(self, event: TrainingEvent) -> None:
        """Have all sinks handle an event that happens now, at the present position."""
        for handler in self._handlers:
            handler(event, self.tokens)
