"""`headway status`."""

import os
import shlex
import time
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Group, RenderableType
from rich.text import Text

from headway.cli import array
from headway.cli.options import Json, Name, Quiet, StoreUrl, choose_store
from headway.cli.screen import ago, clock, coloured, count, decimal, facts, percent, result, show, size, span, table
from headway.launch import members
from headway.reports.curve import newest_losses
from headway.reports.status import AttemptStatus, RunStatus, run_status
from headway.runs import Run, keys, submissions
from headway.runs.run_log import events_newest_first, opening_events

RECENT = 32
"""Batches that the speed of a running attempt is measured over."""
ATTEMPTS = ("attempt", "outcome", "process", "began", ">lasted", ">from tokens", ">to tokens", "reason")
DECISIONS = ("attempt", "action", ">skips tokens from", ">to", "why")


def status(name: Name, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show one run: who holds it, how far it is, how each attempt went, and the command that continues it.

    Of an array: how many of its runs are done, run or wait, and a row for each.

    Example: **headway status quickstart**, and **headway status quickstart --json | jq .state** in a script
    """
    chosen = choose_store(store)
    found = submissions.find(chosen, name)
    seen: members.MemberTable | None
    if found and found.array:
        seen = members.member_table(chosen, found)
        result(array.document(seen), array.shown(seen), as_json=as_json)
    else:
        submitted = (found, 0) if found else submissions.of_run(chosen, name)
        seen = members.member_table(chosen, submitted[0], [submitted[1]]) if submitted else None
        row = seen.rows[0] if seen else None
        if row is None or row.seen:
            document = describe(Run.existing(chosen, name), store, row)
        else:
            document = _not_begun(row, store)
        result(document, _shown(document), as_json=as_json)
    if seen and seen.blind:
        show(f"headway: what SLURM knows is left out: {seen.blind}", quiet=quiet)


def describe(run: Run, url: str | None, row: members.MemberRow | None = None) -> dict[str, Any]:
    """All that `headway status` tells of a run; `row` is what is known of it as a member of a submission."""
    stands = run_status(run)
    loss, held_out = newest_losses(run.store, run.name)
    speed = _speed(run, stands.attempts[-1].number) if stands.state == "running" else None
    newest = stands.history.commits[-1] if stands.history.commits else None
    left = None if stands.budget is None else stands.budget - stands.tokens
    return {
        "run": run.name,
        "state": row.state if row else stands.state,
        "slurm": array.slurm(row.job) if row else None,
        "holder": _holder(stands),
        "tokens": stands.tokens,
        "budget": stands.budget,
        "share": stands.share,
        "loss": loss,
        "held_out": held_out,
        "tokens_per_second": speed,
        "seconds_left": left / speed if left is not None and speed else None,
        "checkpoint": newest and newest.model_dump(include={"tokens", "time", "bytes", "manifest"}),
        "attempts": [_attempt(run, each) for each in stands.attempts],
        "decisions": [
            decision.model_dump(include={"attempt", "time", "action", "reason", "skip_from", "skip_to", "restored"})
            for decision in stands.history.decisions
        ],
        "damage": [each.reason for each in stands.history.damaged] + ([stands.problem] if stands.problem else []),
        "continue": _queued_again(row, url) if row else _command(run, stands, url),
    }


def _not_begun(row: members.MemberRow, url: str | None) -> dict[str, Any]:
    """The status of a run that was submitted and has said nothing yet."""
    nothing = dict.fromkeys(
        ("holder", "budget", "share", "loss", "held_out", "tokens_per_second", "seconds_left", "checkpoint")
    )
    return {
        "run": row.run,
        "state": row.state,
        "slurm": array.slurm(row.job),
        **nothing,
        "tokens": 0,
        "attempts": [],
        "decisions": [],
        "damage": [],
        "continue": _queued_again(row, url),
    }


def _queued_again(row: members.MemberRow, url: str | None) -> str | None:
    """The command that goes on with a submitted run, if nothing else will."""
    busy = row.job and (row.job.waits or row.job.runs)
    if busy or row.state in {"done", "running", "submitted"}:
        return None
    return _with_store(["headway", "requeue", row.run], url)


def _holder(stands: RunStatus) -> dict[str, Any] | None:
    """Who works on the run now."""
    if stands.state != "running":
        return None
    beat, last = stands.heartbeat, stands.attempts[-1]
    own = beat if beat and beat.attempt == last.number else None
    return {
        "process": str(last.holder),
        **last.holder.model_dump(include={"host", "pid", "job"}),
        "attempt": last.number,
        "phase": own and own.phase,
        "heartbeat": own and own.time,
        "slow": own.summary.slow if own and own.summary else "",
    }


def _attempt(run: Run, attempt: AttemptStatus) -> dict[str, Any]:
    """An attempt, which began where it says that it did: not at a newest checkpoint which it found damaged."""
    restored = None
    for event in opening_events(run.store, run.name, attempt.number):
        if event.get("event") == "checkpoint.restored":
            restored = event.get("tokens")
        elif event.get("event") == "restore.nothing_sound":
            restored = 0
    begun = attempt.before if restored is None else restored
    reached = attempt.committed if attempt.committed != attempt.before else begun
    kept = {key: value for key, value in asdict(attempt).items() if key not in {"holder", "before", "committed"}}
    holder = attempt.holder.model_dump(include={"host", "pid", "job"})
    return {**kept, **holder, "from_tokens": begun, "to_tokens": reached}


def _speed(run: Run, attempt: int) -> float | None:
    """Tokens per second of wall clock over the last batches, evaluation and checkpoints included."""
    steps = (event for event in events_newest_first(run.store, run.name) if event.get("attempt") == attempt)
    recent = list(islice((event for event in steps if event.get("event") == "step.done"), RECENT))
    if len(recent) < 2:
        return None
    passed = _moment(recent[0]["timestamp"]) - _moment(recent[-1]["timestamp"])
    return float(recent[0]["tokens"] - recent[-1]["tokens"]) / passed if passed > 0 else None


def _moment(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _command(run: Run, stands: RunStatus, url: str | None) -> str | None:
    """The command that trains on, if there is anything left to train and nobody who does."""
    if stands.state in {"done", "running"}:
        return None
    recipe, place = "RECIPE", urlsplit(run.store.url)
    if place.scheme == "file":
        path = Path(unquote(place.path)) / keys.recipe(run.name)
        recipe = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return _with_store(["headway", "train", recipe, "--run", run.name], url)


def _with_store(words: list[str], url: str | None) -> str:
    chosen = url or os.environ.get("HEADWAY_STORE")
    return shlex.join([*words, "--store", chosen] if chosen else words)


def _shown(document: dict[str, Any]) -> RenderableType:
    """The status for a person."""
    parts: list[RenderableType] = [facts(_facts(document))]
    if document["attempts"]:
        parts += ["", table(ATTEMPTS, [_cells(each) for each in document["attempts"]])]
    if document["decisions"]:
        rows = [
            [str(d["attempt"]), d["action"], count(d["skip_from"]), count(d["skip_to"]), d["reason"]]
            for d in document["decisions"]
        ]
        parts += ["", table(DECISIONS, rows)]
    if document["damage"]:
        parts += ["", Text("damage (headway verify reads the checkpoints too)", "bold red"), *document["damage"]]
    if document["continue"]:
        parts += ["", facts([("go on with", document["continue"])])]
    return Group(*parts)


def _facts(document: dict[str, Any]) -> list[tuple[str, str | Text]]:
    rows: list[tuple[str, str | Text]] = [("run", document["run"]), ("state", coloured(document["state"]))]
    if job := document["slurm"]:
        where = f" on {job['nodes']}" if job["nodes"] else ""
        again = f", restarts: {job['restarts']}" if job["restarts"] else ""
        reason = "" if job["state"] == "CANCELLED" else job["reason"]  # of those it is why they waited before
        rows.append(("job", f"{job['job']} {job['state']} {reason}".rstrip() + where + again))
    if holder := document["holder"]:
        phase = f", in phase {holder['phase']}, heartbeat {ago(holder['heartbeat'])}" if holder["phase"] else ""
        rows.append(("held by", f"{holder['process']}, attempt {holder['attempt']}{phase}"))
        if holder["slow"]:
            rows.append(("slow", Text(holder["slow"], "yellow")))
    if document["budget"] is None and not document["attempts"]:
        return rows  # nothing more is known of what has not begun
    rows.append(
        ("tokens", f"{count(document['tokens'])} of {count(document['budget'])} ({percent(document['share'])})")
    )
    if (left := document["seconds_left"]) is not None:
        speed = f"{document['tokens_per_second']:,.0f} tokens/s"
        rows.append(("time left", f"{span(left)} at {speed}, until {clock(time.time() + left)}"))
    rows.append(("loss", f"{decimal(document['loss'])}, held-out {decimal(document['held_out'])} [nats per token]"))
    newest = document["checkpoint"]
    rows.append(
        (
            "checkpoint",
            f"{count(newest['tokens'])} tokens, {size(newest['bytes'])}, {ago(newest['time'])}" if newest else "none",
        )
    )
    return rows


def _cells(attempt: dict[str, Any]) -> list[str | Text]:
    return [
        str(attempt["number"]),
        coloured(attempt["outcome"]),
        f"{attempt['host']}:{attempt['pid']}",
        clock(attempt["began"])[5:],
        span(attempt["seen"] - attempt["began"]),
        count(attempt["from_tokens"]),
        count(attempt["to_tokens"]),
        attempt["reason"],
    ]
