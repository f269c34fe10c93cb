"""`headway logs`."""

import heapq
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from headway.cli.options import Name, Quiet, StoreUrl, choose_store
from headway.cli.screen import show
from headway.launch import members
from headway.objectstore import Store
from headway.reports.overview import READERS, overview
from headway.reports.status import run_status
from headway.runs import Run, run_names, submissions
from headway.runs.run_log import LOG_START, LogPosition, read_events
from headway.runs.submissions import Submission

POLL_SECONDS = 0.5
QUEUE_SECONDS = 5.0
"""SLURM is not asked more often than this [s]."""
SHOWN_APART = {"event", "level", "timestamp", "run", "trace_id", "attempt", "rank", "phase", "tokens"}
LEVELS = {"warning": "33", "error": "31", "critical": "31"}
"""ANSI colours of events that are not good news."""


def logs(
    name: Name,
    store: StoreUrl = None,
    attempt: Annotated[int | None, typer.Option(help="Only this attempt. Default: all.")] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until nobody works on the run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines: one event a line, as stored.")] = False,
    quiet: Quiet = False,
) -> None:
    """Print what a run said: one event a line, with its attempt, its phase and its position in tokens.

    Of an array: what all of its runs said, in order of time, with the run's name in front. `--follow` prints on as
    runs go on, through the waits for SLURM too, and ends with them, or with Ctrl-C.

    Example: **headway logs quickstart -f**, and **headway logs quickstart --json | grep checkpoint.**
    """
    wanted = watched(choose_store(store), name)
    width = max(len(run) for run in wanted.runs) if len(wanted.runs) > 1 else 0
    try:
        for event in _followed(wanted) if follow else _all(wanted):
            if attempt is None or event.get("attempt") == attempt:
                said = json.dumps(event) if as_json else line(event, width=width)
                print(said, flush=follow)  # noqa: T201 - this is the command line
        sys.stdout.flush()
    except KeyboardInterrupt:
        if not follow:
            raise
        return
    if follow:
        show(f"headway: {wanted.state()}", quiet=quiet)


@dataclass
class Watched:
    """Runs, and the submission that they are of, if any."""

    store: Store
    runs: list[str]
    submission: Submission | None
    indices: Sequence[int] = ()
    _asked: float = 0.0
    """When SLURM was asked last, by the monotonic clock."""

    def over(self) -> bool:
        """Whether nobody works on any of them, and SLURM has none of them in its queue. SLURM is asked seldom."""
        begun = set(run_names(self.store))
        states = [each.state for each in overview(self.store, [run for run in self.runs if run in begun])]
        if "running" in states or not self.submission:
            return all(state not in {"new", "running"} for state in states)
        if time.monotonic() - self._asked < QUEUE_SECONDS:
            return False
        self._asked = time.monotonic()
        return members.member_table(self.store, self.submission, self.indices).over

    def state(self) -> str:
        """How it stands, in a few words."""
        if not self.submission:
            return f"run {self.runs[0]} is {run_status(Run(self.store, self.runs[0])).state}"
        counts = members.member_table(self.store, self.submission, self.indices).counts
        if len(self.runs) == 1:
            return f"run {self.runs[0]} is {next(iter(counts))}"
        return f"{self.submission.name}: " + ", ".join(f"{number} {state}" for state, number in counts.items())


def watched(store: Store, name: str) -> Watched:
    """What `name` means: all runs of a submission, or a run.

    Raises:
        UsageError: neither; names the runs that there are.
    """
    if found := submissions.find(store, name):
        return Watched(store, [member.run for member in found.members], found, range(len(found.members)))
    if member := submissions.of_run(store, name):
        return Watched(store, [name], member[0], [member[1]])
    return Watched(store, [Run.existing(store, name).name], None)


def line(event: Mapping[str, Any], *, width: int = 0) -> str:
    """One stored event as a person reads it; with the run's name in `width` columns in front, if there are any."""
    fields = " ".join(f"{key}={_value(value)}" for key, value in event.items() if key not in SHOWN_APART)
    name = str(event.get("event", ""))
    if (colour := LEVELS.get(str(event.get("level")))) and sys.stdout.isatty():
        name = f"\033[{colour}m{name}\033[0m" + " " * (20 - len(name))
    where = f"{event.get('attempt', '-')}:{event.get('rank', '-')}"
    position = f"{event.get('tokens', 0):,}"
    run = f"{event.get('run', ''):<{width}}  " if width else ""
    return (
        f"{run}{_time(event)}  {where:>5}  {event.get('phase', ''):<10}  {position:>15}  {name:<20}  {fields}".rstrip()
    )


def _time(event: Mapping[str, Any]) -> str:
    try:
        return f"{datetime.fromisoformat(str(event.get('timestamp'))).astimezone():%m-%d %H:%M:%S}"
    except ValueError:
        return " " * 14


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _all(wanted: Watched) -> Iterator[Mapping[str, Any]]:
    """All events, in order of time."""
    told = [(event for _, event in read_events(wanted.store, run)) for run in wanted.runs]
    return heapq.merge(*told, key=_moment) if len(told) > 1 else told[0]


def _followed(wanted: Watched) -> Iterator[Mapping[str, Any]]:
    """Events as they come, until it is over for a whole poll: a run's last words come after its end."""
    after, ended = dict.fromkeys(wanted.runs, LOG_START), False

    def news(run: str) -> list[tuple[LogPosition, dict[str, Any]]]:
        return list(read_events(wanted.store, run, after=after[run]))

    with ThreadPoolExecutor(READERS) as readers:
        while True:
            began, fresh = time.monotonic(), []
            for run, told in zip(wanted.runs, readers.map(news, wanted.runs), strict=True):
                if told:
                    after[run] = told[-1][0]
                    fresh += [event for _, event in told]
            yield from sorted(fresh, key=_moment) if len(wanted.runs) > 1 else fresh
            if ended:
                return
            ended = wanted.over()
            time.sleep(max(POLL_SECONDS, 4 * (time.monotonic() - began)))  # of many runs, a fifth of the time


def _moment(event: Mapping[str, Any]) -> str:
    """By which events are ordered: they are stamped in UTC, in one form."""
    return str(event.get("timestamp", ""))
