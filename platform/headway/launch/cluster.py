"""SLURM's jobs, nodes and partitions: queries and commands.

Reads `scontrol -o show ...` only: its output is the same from SLURM 22.05 to 26.05, that of `--json` is not.
"""

import re
from collections.abc import Iterable

from headway.errors import ClusterError
from headway.launch.scontrol import Partition, SlurmJob, SlurmNode, expand_node_list, parse_jobs
from headway.launch.slurm_cli import run_slurm
from headway.runs.submissions import Submission

__all__ = [
    "Partition",
    "SlurmJob",
    "SlurmNode",
    "cancel",
    "down_nodes",
    "expand_node_list",
    "job",
    "jobs",
    "member_jobs",
    "nodes",
    "partitions",
    "requeue",
    "setting",
    "update",
]


def jobs(ids: Iterable[str]) -> list[SlurmJob]:
    """The jobs with these IDs that SLURM still knows; it forgets jobs soon after their end.

    An ID is that of a job, of an array (all its elements) or of one element, `A_a`.

    Raises:
        ClusterError: SLURM is missing or does not answer.
    """
    ids_by_base: dict[str, set[str]] = {}
    for each in ids:
        ids_by_base.setdefault(each.partition("_")[0], set()).add(each)
    return [
        job
        for base, requested in ids_by_base.items()
        for line in _show("job", base)
        for job in parse_jobs(line)
        if base in requested or job.id in requested or job.raw_id in requested
    ]


def member_jobs(submission: Submission) -> dict[int, SlurmJob]:
    """The newest job of each member of a submission, by the member's index, for the jobs that SLURM still knows.

    Raises:
        ClusterError: SLURM is missing or does not answer, or the submission belongs to another cluster.
    """
    if not submission.jobs:
        return {}
    name = setting("ClusterName")
    if submission.cluster != name:
        raise ClusterError(
            f"{submission.name} was submitted to the cluster {submission.cluster}, and this is {name}; "
            f"use a login node of {submission.cluster}"
        )
    by_id = {job.id: job for job in jobs([submitted.job for submitted in submission.jobs])}
    newest = {index: submission.job_of(index) for index in range(len(submission.members))}
    return {index: by_id[job_id] for index, job_id in newest.items() if job_id in by_id}


def job(id: str) -> SlurmJob | None:  # noqa: A002 - SLURM's word
    """One job or array element by its ID or raw ID; None if SLURM does not know it, or not any more."""
    matches = jobs([id])
    return matches[0] if len(matches) == 1 else next((each for each in matches if id in (each.id, each.raw_id)), None)


def cancel(ids: Iterable[str]) -> None:
    """Cancels jobs, arrays or elements.

    Raises:
        ClusterError: SLURM refuses.
    """
    run_slurm("scancel", *ids)


def requeue(id: str) -> None:  # noqa: A002 - SLURM's word
    """Stops a job or an element `A_a`, and queues it again.

    Raises:
        ClusterError: SLURM refuses, for example because it has already requeued the job ("pending execution").
    """
    run_slurm("scontrol", "requeue", id)


def update(id: str, **changes: str) -> None:  # noqa: A002 - SLURM's word
    """Changes fields of a job: `update("12", ExcNodeList="node3")`.

    Raises:
        ClusterError: SLURM refuses.
    """
    run_slurm("scontrol", "update", f"JobId={id}", *(f"{key}={value}" for key, value in changes.items()))


def nodes(names: Iterable[str] = ()) -> list[SlurmNode]:
    """The named nodes; all nodes if there are no names."""
    return [SlurmNode.parse(line) for line in _show("node", *([",".join(names)] if names else []))]


def down_nodes(names: Iterable[str]) -> set[str]:
    """Those of the named nodes that SLURM reports as down or failed."""
    requested = list(names)
    return {
        node.name
        for node in (nodes(requested) if requested else [])
        if {"DOWN", "FAIL"} & set(node.state.rstrip("*").split("+"))
    }


def partitions() -> list[Partition]:
    """All partitions, hidden ones included."""
    return [Partition.parse(line) for line in _show("partition")]


def setting(name: str) -> str | None:
    """A value of SLURM's configuration, such as MaxArraySize."""
    lines = (line.partition("=") for line in run_slurm("scontrol", "show", "config").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)


def _show(kind: str, *names: str) -> list[str]:
    """Lines of `scontrol -o show KIND NAMES`; none if SLURM does not know the job."""
    try:
        lines = run_slurm("scontrol", "-a", "-o", "show", kind, *names).splitlines()
    except ClusterError as error:
        if re.search(r"Invalid job id specified|Job \S+ not found", str(error)):
            return []
        raise
    return [line for line in lines if re.match(r"[A-Za-z]+(Id|Name)=", line)]
