"""How an array is shown: its members' states counted, and a row for each."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from headway.cli.screen import ago, coloured, count, decimal, listing, percent
from headway.launch.cluster import SlurmJob
from headway.launch.members import MemberRow, MemberTable

COLUMNS = ("run", "state", "SLURM", ">tokens", ">of", ">loss", "node", ">preemptions", ">goodput", ">last seen")


def document(found: MemberTable) -> dict[str, Any]:
    """For a program."""
    return {
        "submission": found.submission.name,
        "job": found.submission.job,
        "cluster": found.submission.cluster,
        "counts": found.counts,
        "members": [_member(row) for row in found.rows],
        "slurm_problem": found.blind,
    }


def shown(found: MemberTable) -> RenderableType:
    """For a person."""
    counts = Text(f"{found.submission.name}: {len(found.rows):,} runs: ")
    counts += Text(", ").join(Text(f"{number:,} ") + coloured(state) for state, number in found.counts.items())
    if jobs := [sent.job for sent in found.submission.sent]:
        counts += Text(f"; job {', '.join(jobs)} on {found.submission.cluster}")
    return Group(counts, "", listing(COLUMNS, [_cells(row) for row in found.rows]))


def slurm(job: SlurmJob | None) -> dict[str, Any] | None:
    """What SLURM says of a job, for a program."""
    if job is None:
        return None
    return {
        "job": job.id,
        "state": job.state,
        "reason": job.reason,
        "nodes": job.node_list,
        "restarts": job.restarts,
        "submitted": job.submitted,
        "started": job.started,
    }


def queued(job: SlurmJob | None) -> str:
    """What SLURM says of a job, for a person. Of a cancelled one the reason is why it waited before."""
    if job is None:
        return "-"
    return job.state if job.state == "CANCELLED" else f"{job.state} {job.reason}".rstrip()


def _member(row: MemberRow) -> dict[str, Any]:
    seen = row.seen
    return {
        "run": row.run,
        "index": row.index,
        "state": row.state,
        "slurm": slurm(row.job),
        "tokens": seen.tokens if seen else 0,
        "budget": seen and seen.budget,
        "share": seen and seen.share,
        "loss": seen and seen.loss,
        "held_out": seen and seen.held_out,
        "node": _node(row),
        "attempts": seen.attempts if seen else 0,
        "preemptions": seen.preemptions if seen else 0,
        "failures": seen.failures if seen else 0,
        "goodput": seen and seen.goodput,
        "seen": seen and seen.seen,
        "reason": seen.reason if seen else "",
        "slow": seen.slow if seen else "",
        "problem": seen and seen.problem,
    }


def _node(row: MemberRow) -> str | None:
    """Where it is, or was last."""
    return (row.job.node_list if row.job else "") or (row.seen.host if row.seen else None)


def _cells(row: MemberRow) -> list[str | Text]:
    seen = row.seen
    start: list[str | Text] = [row.run, coloured(row.state), queued(row.job)]
    if seen is None:
        return [*start, "-", "-", "-", _node(row) or "-", "-", "-", "-"]
    return [
        *start,
        count(seen.tokens),
        percent(seen.share),
        decimal(seen.loss),
        _node(row) or "-",
        count(seen.preemptions),
        percent(seen.goodput),
        ago(seen.seen),
    ]
