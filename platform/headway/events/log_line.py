"""Lines of a log as typed events, whoever wrote them: an older or newer Headway, or somebody else."""

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from typing import Annotated, Any, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, create_model

from headway.events.event import LogEvent
from headway.events.job_events import JobEvent
from headway.events.serving_events import ServingEvent
from headway.events.training_events import StoreWriterEvent, TrainingEvent

KINDS = get_args(TrainingEvent | StoreWriterEvent | JobEvent | ServingEvent)
LOG_EVENTS: Mapping[str, type[LogEvent]] = {kind.name: kind for kind in KINDS if issubclass(kind, LogEvent)}
"""The events that a log may show, by name."""
LIMIT = 2**63
"""Bound of integers: numbers from outside are computed with, drawn and printed."""


class Envelope(BaseModel):
    """What a line says besides its event. Lines of jobs and services say only the time."""

    model_config = ConfigDict(strict=True, frozen=True)

    timestamp: Annotated[AwareDatetime, Field(strict=False)]
    attempt: int | None = None
    """Number of the attempt."""
    rank: int | None = None
    """The rank that writes the log, or the one that the event is about."""
    phase: str | None = None
    """Phase of the attempt, or the one that the event is about."""
    tokens: int | None = None
    """Position of the attempt [tokens]."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log."""

    event: LogEvent
    envelope: Envelope

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Self | None:
        """The line of a JSON object; None if its event is unknown, or if a field is missing or of another type."""
        name = record.get("event")
        kind = LOG_EVENTS.get(name) if isinstance(name, str) else None
        if kind is None or any(isinstance(value, int) and abs(value) >= LIMIT for value in record.values()):
            return None
        try:
            fields = _model(kind.name).model_validate(kind.arguments(record))
            return cls(kind(**vars(fields)), Envelope.model_validate(record))
        except ValidationError:
            return None

    @property
    def time(self) -> float:
        """When it was written [s since 1970]."""
        return self.envelope.timestamp.timestamp()


@cache
def _model(name: str) -> type[BaseModel]:
    """A model that checks the fields of an event."""
    kind: Any = LOG_EVENTS[name]
    fields: dict[str, Any] = {
        each.name: (each.type, ... if each.default is MISSING else each.default) for each in dataclasses.fields(kind)
    }
    return create_model(kind.__name__, __config__=ConfigDict(strict=True), **fields)
