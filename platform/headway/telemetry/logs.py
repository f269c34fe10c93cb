"""Structured logs: readable on a terminal, JSON lines elsewhere, with a copy of each event for a sink."""

import json
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from headway.events.event import Level, LogEvent
from headway.output_text import one_line, strict_json

if TYPE_CHECKING:
    import structlog

Sink = Callable[[str], None]
LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}


class Log:
    """A log of events, and of nothing else."""

    def __init__(self, logger: "structlog.stdlib.BoundLogger") -> None:
        self._write = {"info": logger.info, "warning": logger.warning}

    def write(self, event: LogEvent, **envelope: Any) -> None:
        """Write a line with the fields of `envelope` and of the event, which may replace some of the envelope."""
        self._write[event.level](event.name, **envelope | event.fields())


def open_log(
    sink: Sink | None = None,
    *,
    stream: TextIO | None = None,
    terminal: bool | None = None,
    quiet: bool = False,
    level: Level = "info",
    **bound: Any,
) -> Log:
    """A log on `stream`, by default standard error. Each line has the fields `bound`, except those of value None.

    `sink` gets each event as a JSON line, of any level. `quiet` limits the stream to warnings and errors. `terminal`
    overrides whether the stream is a terminal.
    """
    import structlog

    stream = stream or sys.stderr
    terminal = stream.isatty() if terminal is None else terminal
    threshold = LEVELS["warning" if quiet else level]

    def copy_to_sink(_: Any, method: str, event: Any) -> Any:
        if sink is not None:
            sink(json.dumps(event, default=str))
        if LEVELS[method] < threshold:
            raise structlog.DropEvent
        return event

    def for_people(_: Any, __: str, event: Any) -> Any:
        shown = {key: value for key, value in event.items() if key not in bound}
        return {key: one_line(value) if isinstance(value, str) else value for key, value in shown.items()}

    renderers: list[Any] = (
        [for_people, structlog.dev.ConsoleRenderer(pad_event=22)]
        if terminal
        else [structlog.processors.JSONRenderer(strict_json, default=str)]
    )
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream),  # not PrintLogger: Ray replaces Python's print
        wrapper_class=structlog.make_filtering_bound_logger(0),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            copy_to_sink,
            *renderers,
        ],
        **{name: value for name, value in bound.items() if value is not None},
    )
    return Log(logger)
