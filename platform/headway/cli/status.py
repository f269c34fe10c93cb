"""`headway status`."""

import os
import shlex
import time
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from headway.cli.array import array_document, array_text, job_document
from headway.cli.options import Json, Name, Quiet, StoreUrl, choose_store
from headway.cli.screen import ago, clock, coloured, count, decimal, facts, percent, result, show, size, span, table
from headway.events.training_events import CheckpointRestored, RestoreNothingSound, StepDone
from headway.launch.array_members import MemberRow, member_table
from headway.launch.resolve import resolve
from headway.objectstore.folder import FolderStore
from headway.output_text import one_line
from headway.reports.curve import newest_losses
from headway.reports.status import AttemptStatus, RunStatus, run_status
from headway.runs import Run, keys
from headway.runs.run_log import lines_newest_first, opening_lines

SPEED_STEPS = 32
"""Number of last steps over which the speed of a running attempt is measured."""
ATTEMPTS = ("attempt", "outcome", "process", "began", ">lasted", ">from tokens", ">to tokens", "reason")
DECISION = ("attempt", "time", "action", "reason", "skip_from", "skip_to", "restored", "by")
"""Fields of a decision for `--json`."""
DECISIONS = ("attempt", "action", ">skips tokens from", ">to", "why")


def status(name: Name, store: StoreUrl = None, *, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show a run: who trains it, its progress, the outcome of each attempt, and the command that continues it.

    For an array: the number of runs in each state, and a row for each run.

    Example: **headway status quickstart**, and **headway status quickstart --json | jq .state** in a script
    """
    selection = resolve(choose_store(store), name)
    submission = selection.submission
    members = member_table(selection.store, submission, selection.indices) if submission else None
    if members and selection.array:
        result(array_document(members), array_text(members), as_json=as_json)
    else:
        row = members.rows[0] if members else None
        if row is None or row.overview:
            document = run_document(Run.open(selection.store, name), store, row)
        else:
            document = _unstarted_document(row, store)
        result(document, _text(document), as_json=as_json)
    if members and members.slurm_problem:
        show(f"headway: shown without SLURM's data: {members.slurm_problem}", quiet=quiet)


def run_document(run: Run, url: str | None, row: MemberRow | None = None) -> dict[str, Any]:
    """The status of a run for `--json`; `row` is the run as a member of a submission."""
    state = run_status(run)
    loss, held_out = newest_losses(run.store, run.name)
    speed = _speed(run, state.attempts[-1].number) if state.state == "running" else None
    newest = state.history.commits[-1] if state.history.commits else None
    remaining = None if state.budget is None else state.budget - state.tokens
    return {
        "run": run.name,
        "state": row.state if row else state.state,
        "slurm": job_document(row.job) if row else None,
        "holder": _holder(state),
        "tokens": state.tokens,
        "budget": state.budget,
        "share": state.share,
        "loss": loss,
        "held_out": held_out,
        "tokens_per_second": speed,
        "seconds_left": remaining / speed if remaining is not None and speed else None,
        "checkpoint": newest and newest.model_dump(include={"tokens", "time", "bytes", "manifest"}),
        "attempts": [_attempt(run, attempt) for attempt in state.attempts],
        "decisions": [{name: getattr(decision, name) for name in DECISION} for decision in state.history.decisions],
        "damage": [entry.reason for entry in state.history.damaged] + ([state.problem] if state.problem else []),
        "continue": _requeue_command(row, url) if row else _train_command(run, state, url),
    }


def _unstarted_document(row: MemberRow, url: str | None) -> dict[str, Any]:
    """The status of a submitted run that has not started, for `--json`."""
    unknown = dict.fromkeys(
        ("holder", "budget", "share", "loss", "held_out", "tokens_per_second", "seconds_left", "checkpoint")
    )
    return {
        "run": row.run,
        "state": row.state,
        "slurm": job_document(row.job),
        **unknown,
        "tokens": 0,
        "attempts": [],
        "decisions": [],
        "damage": [],
        "continue": _requeue_command(row, url),
    }


def _requeue_command(row: MemberRow, url: str | None) -> str | None:
    """The command that continues a submitted run; None if it is done or continues by itself."""
    active = row.job and row.job.is_active
    if active or row.state in {"done", "running", "submitted"}:
        return None
    return _with_store(["headway", "requeue", row.run], url)


def _holder(state: RunStatus) -> dict[str, Any] | None:
    """The process that trains the run now; None if none does."""
    if state.state != "running":
        return None
    last = state.attempts[-1]
    heartbeat = state.heartbeat if state.heartbeat and state.heartbeat.attempt == last.number else None
    return {
        "process": str(last.holder),
        **last.holder.model_dump(include={"host", "pid", "job"}),
        "attempt": last.number,
        "phase": heartbeat and heartbeat.phase,
        "heartbeat": heartbeat and heartbeat.time,
        "slow": heartbeat.summary.slow if heartbeat and heartbeat.summary else "",
    }


def _attempt(run: Run, attempt: AttemptStatus) -> dict[str, Any]:
    """An attempt for `--json`. It starts at the checkpoint that it restored; newer ones may have been damaged."""
    restored = None
    for line in opening_lines(run.store, run.name, attempt.number):
        match line.event:
            case CheckpointRestored(at=tokens):
                restored = tokens
            case RestoreNothingSound():
                restored = 0
    start = attempt.tokens_before if restored is None else restored
    end = attempt.tokens_committed if attempt.tokens_committed != attempt.tokens_before else start
    return {
        "number": attempt.number,
        "began": attempt.started,
        "seen": attempt.last_seen,
        "outcome": attempt.outcome,
        "reason": attempt.reason,
        **attempt.holder.model_dump(include={"host", "pid", "job"}),
        "from_tokens": start,
        "to_tokens": end,
    }


def _speed(run: Run, attempt: int) -> float | None:
    """Tokens per second of wall clock over the last steps, including evaluations and checkpoints."""
    lines = (line for line in lines_newest_first(run.store, run.name) if line.envelope.attempt == attempt)
    recent = list(islice((line for line in lines if isinstance(line.event, StepDone)), SPEED_STEPS))
    if len(recent) < 2:
        return None
    newest, oldest = recent[0], recent[-1]
    seconds = newest.time - oldest.time
    tokens = (newest.envelope.tokens or 0) - (oldest.envelope.tokens or 0)
    return tokens / seconds if seconds > 0 else None


def _train_command(run: Run, state: RunStatus, url: str | None) -> str | None:
    """The command that continues training; None if the run is done or running."""
    if state.state in {"done", "running"}:
        return None
    recipe = "RECIPE"
    if isinstance(run.store, FolderStore):
        path = run.store.root / keys.recipe(run.name)
        recipe = str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    return _with_store(["headway", "train", recipe, "--run", run.name], url)


def _with_store(words: list[str], url: str | None) -> str:
    """A shell command with the `--store` of this call."""
    location = url or os.environ.get("HEADWAY_STORE")
    return shlex.join([*words, "--store", location] if location else words)


def _text(document: dict[str, Any]) -> RenderableType:
    """The status for a terminal."""
    parts: list[RenderableType] = [facts(_facts(document))]
    if document["attempts"]:
        parts += ["", table(ATTEMPTS, [_cells(attempt) for attempt in document["attempts"]])]
    if document["decisions"]:
        rows = [
            [str(d["attempt"]), d["action"], count(d["skip_from"]), count(d["skip_to"]), d["reason"]]
            for d in document["decisions"]
        ]
        parts += ["", table(DECISIONS, rows)]
    if document["damage"]:
        parts += [
            "",
            Text("damage (headway verify reads the checkpoints too)", "bold red"),
            *map(_line, document["damage"]),
        ]
    if document["continue"]:
        parts += ["", facts([("continue with", document["continue"])])]
    return Group(*parts)


def _facts(document: dict[str, Any]) -> list[tuple[str, str | Text]]:
    """Names and values of a run's status."""
    rows: list[tuple[str, str | Text]] = [("run", document["run"]), ("state", coloured(document["state"]))]
    if job := document["slurm"]:
        nodes = f" on {job['nodes']}" if job["nodes"] else ""
        restarts = f", restarts: {job['restarts']}" if job["restarts"] else ""
        reason = "" if job["state"] == "CANCELLED" else job["reason"]  # a cancelled job's reason is why it waited
        rows.append(("job", f"{job['job']} {job['state']} {reason}".rstrip() + nodes + restarts))
    if holder := document["holder"]:
        phase = f", in phase {holder['phase']}, heartbeat {ago(holder['heartbeat'])}" if holder["phase"] else ""
        rows.append(("held by", f"{holder['process']}, attempt {holder['attempt']}{phase}"))
        if holder["slow"]:
            rows.append(("slow", Text(one_line(holder["slow"]), "yellow")))
    if document["budget"] is None and not document["attempts"]:
        return rows  # the run has not started
    rows.append(
        ("tokens", f"{count(document['tokens'])} of {count(document['budget'])} ({percent(document['share'])})")
    )
    if (remaining := document["seconds_left"]) is not None:
        speed = f"{document['tokens_per_second']:,.0f} tokens/s"
        rows.append(("time left", f"{span(remaining)} at {speed}, until {clock(time.time() + remaining)}"))
    rows.append(("loss", f"{decimal(document['loss'])}, held-out {decimal(document['held_out'])} [nats per token]"))
    newest = document["checkpoint"]
    rows.append(
        (
            "checkpoint",
            f"{count(newest['tokens'])} tokens, {size(newest['bytes'])}, {ago(newest['time'])}" if newest else "none",
        )
    )
    return rows


def _line(text: str) -> Text:
    """A text on one line."""
    return Text(one_line(text))


def _cells(attempt: dict[str, Any]) -> list[str | Text]:
    """An attempt for a terminal."""
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
