"""Formats an array: the number of members in each state, and a row for each member."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from headway.cli.screen import ago, coloured, count, decimal, listing, percent
from headway.launch.array_members import MemberRow, MemberTable
from headway.launch.scontrol import SlurmJob

COLUMNS = ("run", "state", "SLURM", ">tokens", ">of", ">loss", "node", ">preemptions", ">goodput", ">last seen")


def array_document(table: MemberTable) -> dict[str, Any]:
    """The array for `--json`."""
    return {
        "submission": table.submission.name,
        "job": table.submission.job,
        "cluster": table.submission.cluster,
        "counts": table.counts,
        "members": [_member(row) for row in table.rows],
        "slurm_problem": table.slurm_problem,
    }


def array_text(table: MemberTable) -> RenderableType:
    """The array for a terminal."""
    counts = Text(f"{table.submission.name}: {len(table.rows):,} runs: ")
    counts += Text(", ").join(Text(f"{number:,} ") + coloured(state) for state, number in table.counts.items())
    if jobs := [submitted.job for submitted in table.submission.jobs]:
        counts += Text(f"; job {', '.join(jobs)} on {table.submission.cluster}")
    return Group(counts, "", listing(COLUMNS, [_cells(row) for row in table.rows]))


def job_document(job: SlurmJob | None) -> dict[str, Any] | None:
    """A SLURM job for `--json`."""
    if job is None:
        return None
    return {
        "job": job.id,
        "state": job.state,
        "reason": job.reason,
        "nodes": job.node_list,
        "restarts": job.restarts,
        "submitted": job.submit_time,
        "started": job.start_time,
    }


def _job_state(job: SlurmJob | None) -> str:
    """A SLURM job's state for a terminal. The reason of a cancelled job is why it waited before, so it is left out."""
    if job is None:
        return "-"
    return job.state if job.state == "CANCELLED" else f"{job.state} {job.reason}".rstrip()


def _member(row: MemberRow) -> dict[str, Any]:
    """A member for `--json`."""
    run = row.overview
    return {
        "run": row.run,
        "index": row.index,
        "state": row.state,
        "slurm": job_document(row.job),
        "tokens": run.tokens if run else 0,
        "budget": run and run.budget,
        "share": run and run.share,
        "loss": run and run.loss,
        "held_out": run and run.held_out,
        "node": _node(row),
        "attempts": run.attempts if run else 0,
        "preemptions": run.preemptions if run else 0,
        "failures": run.failures if run else 0,
        "goodput": run and run.goodput,
        "seen": run and run.last_seen,
        "reason": run.reason if run else "",
        "slow": run.slow if run else "",
        "problem": run and run.problem,
    }


def _node(row: MemberRow) -> str | None:
    """Current or last node of the member."""
    return (row.job.node_list if row.job else "") or (row.overview.host if row.overview else None)


def _cells(row: MemberRow) -> list[str | Text]:
    """A member for a terminal."""
    run = row.overview
    start: list[str | Text] = [row.run, coloured(row.state), _job_state(row.job)]
    if run is None:
        return [*start, "-", "-", "-", _node(row) or "-", "-", "-", "-"]
    return [
        *start,
        count(run.tokens),
        percent(run.share),
        decimal(run.loss),
        _node(row) or "-",
        count(run.preemptions),
        percent(run.goodput),
        ago(run.last_seen),
    ]
