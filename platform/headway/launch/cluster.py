"""SLURM as it answers: jobs, machines and partitions, and what is done to jobs.

Only `scontrol -o show ...` is read: its words are the same from SLURM 22.05 to 26.05, those of --json are not.
"""

import re
from collections.abc import Iterable

from headway.errors import ClusterError
from headway.launch.scontrol import Partition, SlurmJob, SlurmNode, hosts, jobs_of
from headway.launch.slurm_cli import run_slurm

__all__ = [
    "Partition",
    "SlurmJob",
    "SlurmNode",
    "cancel",
    "down",
    "hosts",
    "job",
    "jobs",
    "nodes",
    "partitions",
    "requeue",
    "setting",
    "update",
]


def jobs(ids: Iterable[str]) -> list[SlurmJob]:
    """What SLURM knows of jobs, arrays (all their elements) and elements `A_a`; it forgets jobs soon after their end.

    Raises:
        ClusterError: SLURM is not there, or does not answer.
    """
    wanted: dict[str, set[str]] = {}
    for each in ids:
        wanted.setdefault(each.partition("_")[0], set()).add(each)
    return [
        job
        for base, elements in wanted.items()
        for line in _shown("job", base)
        for job in jobs_of(line)
        if base in elements or job.id in elements or job.raw in elements
    ]


def job(id: str) -> SlurmJob | None:  # noqa: A002 - what SLURM calls it
    """What SLURM knows of one job or one element, by its id or its raw id; None if it knows nothing (any more)."""
    found = jobs([id])
    return next((each for each in found if id in (each.id, each.raw)), None) if len(found) != 1 else found[0]


def cancel(ids: Iterable[str]) -> None:
    """End jobs, arrays or elements.

    Raises:
        ClusterError: SLURM refuses.
    """
    run_slurm("scancel", *ids)


def requeue(id: str) -> None:  # noqa: A002 - what SLURM calls it
    """Stop a job, or an element `A_a`, and queue it anew.

    Raises:
        ClusterError: SLURM refuses, among others because it has done so by itself ("pending execution").
    """
    run_slurm("scontrol", "requeue", id)


def update(id: str, **changes: str) -> None:  # noqa: A002 - what SLURM calls it
    """Change a job, as in `update("12", ExcNodeList="node3")`.

    Raises:
        ClusterError: SLURM refuses.
    """
    run_slurm("scontrol", "update", f"JobId={id}", *(f"{key}={value}" for key, value in changes.items()))


def nodes(names: Iterable[str] = ()) -> list[SlurmNode]:
    """Machines: these, or all."""
    return [SlurmNode.parse(line) for line in _shown("node", *([",".join(names)] if names else []))]


def down(names: Iterable[str]) -> set[str]:
    """Which of these machines SLURM has given up."""
    wanted = list(names)
    return {
        node.name
        for node in (nodes(wanted) if wanted else [])
        if {"DOWN", "FAIL"} & set(node.state.rstrip("*").split("+"))
    }


def partitions() -> list[Partition]:
    """All partitions, hidden ones too."""
    return [Partition.parse(line) for line in _shown("partition")]


def setting(name: str) -> str | None:
    """A value of SLURM's configuration, such as MaxArraySize."""
    lines = (line.partition("=") for line in run_slurm("scontrol", "show", "config").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)


def _shown(kind: str, *which: str) -> list[str]:
    """Lines of `scontrol -o show KIND`; none if it does not know of any."""
    try:
        lines = run_slurm("scontrol", "-a", "-o", "show", kind, *which).splitlines()
    except ClusterError as error:
        if re.search(r"Invalid job id specified|Job \S+ not found", str(error)):
            return []
        raise
    return [line for line in lines if re.match(r"[A-Za-z]+(Id|Name)=", line)]
