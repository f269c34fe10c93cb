"""`headway logs`."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from headway.cli.options import Quiet, RunName, StoreUrl, chosen_run
from headway.cli.screen import show
from headway.store import Run
from headway.store.record import BEGINNING, events
from headway.store.standing import standing

POLL_SECONDS = 0.5
SHOWN_APART = {"event", "level", "timestamp", "run", "attempt", "rank", "phase", "tokens"}
LEVELS = {"warning": "33", "error": "31", "critical": "31"}
"""ANSI colours of events that are not good news."""


def logs(
    run: RunName,
    store: StoreUrl = None,
    attempt: Annotated[int | None, typer.Option(help="Only this attempt. Default: all.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until nobody works on the run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: one event a line, as stored.")] = False,
    quiet: Quiet = False,
) -> None:
    """Print what a run said: one event a line, with its attempt, its phase and its position in tokens.

    `--follow` prints on as the run goes on, and ends with it, or with Ctrl-C. It needs nothing but the store.

    Example: **headway logs quickstart -f**, and **headway logs quickstart --json | grep checkpoint.**
    """
    found = chosen_run(run, store)
    try:
        for event in _followed(found) if follow else _all(found):
            if attempt is None or event.get("attempt") == attempt:
                print(json.dumps(event) if as_json else line(event), flush=follow)  # noqa: T201 - this is the command line
        sys.stdout.flush()
    except KeyboardInterrupt:
        if not follow:
            raise
        return
    if follow:
        show(f"headway: run {run} is {standing(found).state}", quiet=quiet)


def line(event: Mapping[str, Any]) -> str:
    """One stored event as a person reads it."""
    fields = " ".join(f"{key}={_value(value)}" for key, value in event.items() if key not in SHOWN_APART)
    name = str(event.get("event", ""))
    if (colour := LEVELS.get(str(event.get("level")))) and sys.stdout.isatty():
        name = f"\033[{colour}m{name}\033[0m" + " " * (20 - len(name))
    where = f"{event.get('attempt', '-')}:{event.get('rank', '-')}"
    position = f"{event.get('tokens', 0):,}"
    return f"{_time(event)}  {where:>5}  {event.get('phase', ''):<10}  {position:>15}  {name:<20}  {fields}".rstrip()


def _time(event: Mapping[str, Any]) -> str:
    try:
        return f"{datetime.fromisoformat(str(event.get('timestamp'))).astimezone():%m-%d %H:%M:%S}"
    except ValueError:
        return " " * 14


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _all(run: Run) -> Iterator[Mapping[str, Any]]:
    return (event for _, event in events(run.store, run.name))


def _followed(run: Run) -> Iterator[Mapping[str, Any]]:
    """Events as they come, until nobody has worked on the run for a whole poll: its last words come after its end."""
    after, ended = BEGINNING, False
    while True:
        for place, event in events(run.store, run.name, after=after):
            after = place
            yield event
        if ended:
            return
        ended = standing(run).state not in {"new", "running"}
        time.sleep(POLL_SECONDS)
