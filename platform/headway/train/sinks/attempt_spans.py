"""Spans of an attempt that begin and end with its events."""

import time
from typing import Any, assert_never

from headway.events.training_events import (
    AttemptClaimed,
    AttemptEnded,
    AttemptStarted,
    BatchEvent,
    CheckpointCommitted,
    CheckpointFailed,
    CheckpointRefused,
    CheckpointStaged,
    CheckpointUntidy,
    RankEvent,
    RestoreEvent,
    SaveStarted,
    StallEnded,
    TrainingEvent,
)
from headway.telemetry import Spans
from headway.train.clock import Clock

SpanlessEvent = BatchEvent | RankEvent | RestoreEvent
"""Events that neither begin nor end a span."""


class AttemptSpans:
    """Records startup, saves and drain of one attempt."""

    def __init__(self, spans: Spans, attempt: int, clock: Clock) -> None:
        self._spans, self._attempt, self._clock = spans, attempt, clock
        self._save_start = 0.0
        """Start of the save in progress [s since 1970]."""

    def handle(self, event: TrainingEvent, tokens: int) -> None:
        """Record the span that ends with an event at the position `tokens`."""
        if isinstance(event, SpanlessEvent):
            return
        now = time.time()
        match event:
            case SaveStarted():
                self._save_start = now
            case CheckpointCommitted():
                self._record("checkpoint", self._save_start, now, tokens=event.at)
            case CheckpointFailed():
                self._record("checkpoint", self._save_start, now, problem=event.problem)
            case AttemptStarted():
                stages: dict[str, Any] = {f"stage.{stage}": seconds for stage, seconds in event.stages.items()}
                self._record("startup", now - event.total, now, tokens=tokens, **stages)
            case AttemptEnded():
                start = now - self._clock.seconds_by_phase()["drain"]
                self._record("drain", start, now, tokens=tokens, outcome=event.outcome)
            case AttemptClaimed() | CheckpointStaged() | CheckpointRefused() | CheckpointUntidy() | StallEnded():
                pass
            case _:
                assert_never(event)

    def _record(self, phase: str, start: float, end: float, *, problem: str | None = None, **own: Any) -> None:
        self._spans.record(f"train.{phase}", start, end, problem=problem, attempt=self._attempt, **own)
