"""Logs: events with dotted nouns for names, JSON lines off a terminal, readable on one, copied to any sink."""

import json
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

if TYPE_CHECKING:
    import structlog

Log: TypeAlias = "structlog.stdlib.BoundLogger"
Sink = Callable[[str], None]
LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}


def open_log(
    sink: Sink | None = None,
    *,
    stream: TextIO | None = None,
    terminal: bool | None = None,
    quiet: bool = False,
    level: str = "info",
    **bound: Any,
) -> Log:
    """A log on `stream`, standard error by default, with `bound` on every line, except for what of it is None.

    `sink` gets each event as a JSON line, even if `quiet`, which shows warnings and errors only. `terminal`: whether a
    person reads it, where the stream does not know.
    """
    import structlog

    stream = stream or sys.stderr
    terminal = stream.isatty() if terminal is None else terminal
    floor = LEVELS["warning" if quiet else level]

    def copy(_: Any, method: str, event: Any) -> Any:
        if sink is not None:
            sink(json.dumps(event, default=str))
        if LEVELS[method] < floor:
            raise structlog.DropEvent
        return event

    def brief(_: Any, __: str, event: Any) -> Any:
        return {key: value for key, value in event.items() if key not in bound}

    shown: list[Any] = (
        [brief, structlog.dev.ConsoleRenderer(pad_event=22)]
        if terminal
        else [structlog.processors.JSONRenderer(default=str)]
    )
    logger: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream),  # not PrintLogger: under Ray, print is not Python's
        wrapper_class=structlog.make_filtering_bound_logger(0),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            copy,
            *shown,
        ],
        **{name: value for name, value in bound.items() if value is not None},
    )
    return logger
