"""What is asked of SLURM for each run: machines, time, and where; in the words of `headway submit` and of sbatch."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.errors import UsageError
from headway.launch.scontrol import duration
from headway.launch.sweep import SweepMember
from headway.recipe import Recipe

LEAD_SECONDS = 60.0
"""SLURM is asked to tell of a time limit this much earlier than `machine.grace_seconds` [s]: it looks every 30 s
(PERIODIC_TIMEOUT in slurmctld.h, of any version)."""
NODES = re.compile(r"(\d+)(?:[:-](\d+))?$")
GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?(\d+)$")
EXTRA = re.compile(r"-{0,2}([a-z][a-z0-9-]*)(?:=(.*))?$", re.DOTALL)
OURS = {
    "array": "--array and --parallel",
    "job-name": "--name",
    "nodes": "--nodes",
    "ntasks": "--nproc",
    "ntasks-per-node": "--nproc",
    "gpus-per-node": "--gpus",
    "time": "--time",
    "partition": "--partition",
    "wrap": "jobs/slurm/pretrain.sbatch",
    **dict.fromkeys(
        ("requeue", "no-requeue", "open-mode", "no-kill", "signal"), "a file of your own like jobs/slurm's"
    ),
}
"""What `--sbatch` must not say, and where it is said."""


@dataclass(frozen=True)
class Resources:
    """One run's share of a cluster."""

    nodes_min: int
    nodes_max: int
    ranks: int
    """On each node."""
    cpus: int
    """On each node."""
    lead: int
    """How long before a time limit the ranks are told [s]."""
    gpus: str | None = None
    """On each node, as SLURM writes it: a number, or `TYPE:number`."""
    time: str | None = None
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    parallel: int | None = None
    """How many elements of an array may run at once."""
    extra: Mapping[str, str | bool] | None = None
    """Anything else, in sbatch's words."""

    @property
    def gpu_count(self) -> int:
        """GPUs on each node."""
        return int(self.gpus.rpartition(":")[2]) if self.gpus else 0

    def parameters(self, name: str, logs: Path, setup: Sequence[str], members: int | None) -> dict[str, Any]:
        """All of it as submitit's parameters, for a job or an array of so many members."""
        which = "%x-%A_%a" if members else "%x-%j"
        nodes = f"{self.nodes_min}-{self.nodes_max}" if self.nodes_max > self.nodes_min else str(self.nodes_min)
        return {
            "job_name": name,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus,
            "time": self.time,
            "partition": self.partition,
            "qos": self.qos,
            "account": self.account,
            "constraint": self.constraint,
            "exclude": self.exclude,
            "array_parallelism": self.parallel or members or 1,
            "wckey": None,
            "stderr_to_stdout": True,
            "use_srun": False,
            "setup": list(setup),
            "additional_parameters": {
                "nodes": nodes,
                "signal": f"TERM@{self.lead}",
                "requeue": True,
                "no-kill": True,
                "open-mode": "append",
                "output": f"{logs}/{which}.out",
                **(self.extra or {}),
            },
        }


def lead_seconds(recipe: Recipe) -> int:
    """How long before a time limit the ranks must hear of it [s]: to finish a step, save, and leave."""
    return math.ceil(recipe.machine.grace_seconds + LEAD_SECONDS)


def resources(
    members: Sequence[SweepMember],
    *,
    nodes: str = "1",
    nproc: int | None = None,
    gpus: str | None = None,
    time: str | None = None,
    extra: Sequence[str] = (),
    **asked: Any,
) -> Resources:
    """What the members need, and what was `asked` besides; what nobody said follows from the recipes.

    Raises:
        UsageError: it contradicts itself or a recipe; says what would do.
    """
    least, most = _nodes(nodes)
    if gpus and not GPUS.match(gpus):
        raise UsageError(f"--gpus {gpus}: write a number for each node, or TYPE:NUMBER, such as a100:4")
    count = int(gpus.rpartition(":")[2]) if gpus else 0
    ranks = nproc or count or max(member.recipe.machine.ranks for member in members)
    for member in members:
        lanes = member.recipe.train.lanes
        if most * ranks > lanes:
            fewer = f"--nodes {lanes // ranks}" if lanes >= ranks else f"--nproc {lanes}"
            raise UsageError(
                f"run {member.run}: {most * ranks} ranks ({most} nodes of {ranks}) cannot share a batch of {lanes} "
                f"lanes; ask for at most {fewer}, or begin a run with more train.lanes"
            )
    lead = max(lead_seconds(member.recipe) for member in members)
    if time:
        _check_time(time, lead)
    more = dict(map(_extra, extra))
    cpus = ranks * max(member.recipe.train.threads for member in members)
    return Resources(
        nodes_min=least,
        nodes_max=most,
        ranks=ranks,
        cpus=int(more.pop("cpus_per_task", cpus)),
        lead=lead,
        gpus=gpus,
        time=time,
        extra=more,
        **asked,
    )


def _nodes(text: str) -> tuple[int, int]:
    found = NODES.match(text)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise UsageError(f"--nodes {text}: write how many, or MIN:MAX, such as 1:4")
    return least, most


def _check_time(text: str, lead: int) -> None:
    try:
        limit = duration(text)
    except ValueError:
        raise UsageError(
            f"--time {text}: write minutes, HH:MM:SS or D-HH:MM:SS, as SLURM does; 90, 01:30:00 or 2-12:00:00"
        ) from None
    if limit is not None and limit <= lead:
        raise UsageError(
            f"--time {text} leaves no time to train: the ranks are told {lead} s before the limit "
            f"(machine.grace_seconds, and 60 s because SLURM looks seldom); ask for more, or lower that"
        )


def _extra(text: str) -> tuple[str, str | bool]:
    """One `--sbatch KEY=VALUE` or `--sbatch KEY`."""
    found = EXTRA.match(text)
    if not found:
        raise UsageError(f"--sbatch {text}: write an option of sbatch, such as mem=32G or exclusive")
    key, value = found.groups()
    if key in OURS:
        raise UsageError(f"--sbatch {text}: that is what {OURS[key]} is for")
    return key.replace("-", "_"), True if value is None else value
