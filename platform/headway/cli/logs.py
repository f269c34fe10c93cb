"""`headway logs`."""

import heapq
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Annotated, Any

import typer

from headway.cli.options import Name, Quiet, StoreUrl, choose_store
from headway.cli.screen import show, standard_output
from headway.launch.array_members import member_table
from headway.launch.resolve import Selection, resolve
from headway.output_text import one_line, strict_json
from headway.reports.overview import overview
from headway.reports.status import run_status
from headway.runs import Run, run_names
from headway.runs.run_log import LOG_START, LogPosition, Record, read_records

POLL_SECONDS = 0.5
QUEUE_SECONDS = 5.0
"""Interval of SLURM queries [s]."""
COLUMN_FIELDS = {"event", "level", "timestamp", "run", "trace_id", "attempt", "rank", "phase", "tokens"}
"""Event fields that have a column of their own, or are not printed."""
LEVELS = {"warning": "33", "error": "31", "critical": "31"}
"""ANSI colours by level."""


def logs(
    name: Name,
    store: StoreUrl = None,
    attempt: Annotated[int | None, typer.Option(help="Number of the attempt. Default: all attempts.")] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until no process trains the run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: one event per line, as stored.")] = False,
    quiet: Quiet = False,
) -> None:
    """Print the events of a run, one per line, with attempt, phase and position in tokens.

    For an array: the events of all runs in order of time, each with its run's name in front. `--follow` continues
    through waits in SLURM's queue, and ends with the runs or with Ctrl-C.

    Example: **headway logs quickstart -f**, and **headway logs quickstart --json | grep checkpoint.**
    """
    followed = FollowedRuns(resolve(choose_store(store), name))
    width = max(len(run) for run in followed.runs) if len(followed.runs) > 1 else 0
    try:
        for record in followed.records() if follow else _stored_records(followed.selection):
            if attempt is None or record.get("attempt") == attempt:
                text = strict_json(record) if as_json else line(record, width=width)
                with standard_output(flush=follow):
                    print(text)  # noqa: T201 - this is the command line
        with standard_output():
            pass  # all lines are written
    except KeyboardInterrupt:
        if not follow:
            raise
        return
    if follow:
        show(f"headway: {followed.summary()}", quiet=quiet)


class FollowedRuns:
    """Runs whose events are printed as they are written."""

    def __init__(self, selection: Selection) -> None:
        self.selection, self.store, self.runs = selection, selection.store, selection.runs
        self._queried = 0.0
        """Time of the last SLURM query, by the monotonic clock."""

    def is_over(self) -> bool:
        """Whether no run is trained, and no job of them waits or runs. Queries SLURM every `QUEUE_SECONDS` at most."""
        submission, existing = self.selection.submission, set(run_names(self.store))
        states = [each.state for each in overview(self.store, [run for run in self.runs if run in existing])]
        if "running" in states or not submission:
            return all(state not in {"new", "running"} for state in states)
        if time.monotonic() - self._queried < QUEUE_SECONDS:
            return False
        self._queried = time.monotonic()
        return member_table(self.store, submission, self.selection.indices).is_over

    def summary(self) -> str:
        """The state of the run, or the number of runs in each state."""
        submission = self.selection.submission
        if not submission:
            return f"run {self.runs[0]} is {run_status(Run(self.store, self.runs[0])).state}"
        counts = member_table(self.store, submission, self.selection.indices).counts
        if len(self.runs) == 1:
            return f"run {self.runs[0]} is {next(iter(counts))}"
        return f"{submission.name}: " + ", ".join(f"{number} {state}" for state, number in counts.items())

    def records(self) -> Iterator[Record]:
        """Events as they are written. Ends one poll after the runs are over: a run's last events follow its end."""
        positions, over = dict.fromkeys(self.runs, LOG_START), False

        def read_new(run: str) -> list[tuple[LogPosition, Record]]:
            return list(read_records(self.store, run, after=positions[run]))

        with ThreadPoolExecutor(self.store.readers) as readers:
            while True:
                start, new_records = time.monotonic(), []
                for run, entries in zip(self.runs, readers.map(read_new, self.runs), strict=True):
                    if entries:
                        positions[run] = entries[-1][0]
                        new_records += [record for _, record in entries]
                yield from sorted(new_records, key=_timestamp) if len(self.runs) > 1 else new_records
                if over:
                    return
                over = self.is_over()
                time.sleep(max(POLL_SECONDS, 4 * (time.monotonic() - start)))  # reads at most a fifth of the time


def line(record: Record, *, width: int = 0) -> str:
    """Formats a stored event for a terminal. The run's name fills the first `width` columns, if there are any."""
    fields = one_line(" ".join(f"{key}={_value(value)}" for key, value in record.items() if key not in COLUMN_FIELDS))
    name = one_line(str(record.get("event", "")))
    if (colour := LEVELS.get(str(record.get("level")))) and sys.stdout.isatty():
        name = f"\033[{colour}m{name}\033[0m" + " " * (20 - len(name))
    rank = one_line(f"{record.get('attempt', '-')}:{record.get('rank', '-')}")
    tokens = record.get("tokens", 0)
    position = f"{tokens:,}" if isinstance(tokens, int) else one_line(str(tokens))
    run = f"{one_line(str(record.get('run', ''))):<{width}}  " if width else ""
    phase = one_line(str(record.get("phase", "")))
    return f"{run}{_time(record)}  {rank:>5}  {phase:<10}  {position:>15}  {name:<20}  {fields}".rstrip()


def _time(record: Record) -> str:
    """Local time of an event."""
    try:
        return f"{datetime.fromisoformat(str(record.get('timestamp'))).astimezone():%m-%d %H:%M:%S}"
    except (ValueError, OverflowError):
        return " " * 14


def _value(value: Any) -> str:
    """The value of an event's field."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _stored_records(selection: Selection) -> Iterator[Record]:
    """All stored events in order of time."""
    logs = [(record for _, record in read_records(selection.store, run)) for run in selection.runs]
    return heapq.merge(*logs, key=_timestamp) if len(logs) > 1 else logs[0]


def _timestamp(record: Record) -> str:
    """The sort key of events: their time in UTC, in one format."""
    return str(record.get("timestamp", ""))
