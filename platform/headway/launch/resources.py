"""The resources of each run's job: nodes, time and partition, in the words of `headway submit` and sbatch."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.errors import UsageError
from headway.launch.scontrol import parse_duration
from headway.launch.sweep import SweepMember
from headway.recipe import Recipe

SCHEDULER_SECONDS = 60.0
"""Time added to `machine.grace_seconds` for the warning before a time limit [s]. SLURM checks limits every 30 s
(PERIODIC_TIMEOUT in slurmctld.h, in all versions)."""
NODES = re.compile(r"(\d+)(?:[:-](\d+))?$")
GPUS = re.compile(r"(?:[A-Za-z][\w.-]*:)?(\d+)$")
SBATCH_OPTION = re.compile(r"-{0,2}([a-z][a-z0-9-]*)(?:=(.*))?$", re.DOTALL)
OWN_OPTIONS = {
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
        ("requeue", "no-requeue", "open-mode", "no-kill", "signal"), "a batch file of your own like those in jobs/slurm"
    ),
}
"""sbatch options that `--sbatch` rejects, and what to use instead."""


@dataclass(frozen=True)
class Resources:
    """The resources of one run's job."""

    nodes_min: int
    nodes_max: int
    ranks: int
    """Ranks per node."""
    cpus: int
    """CPUs per node."""
    lead: int
    """Time between the signal to the ranks and the time limit [s]."""
    gpus: str | None = None
    """GPUs per node in SLURM's syntax: a number, or `TYPE:number`."""
    time: str | None = None
    """Time limit in SLURM's syntax."""
    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    parallel: int | None = None
    """Largest number of array elements that run at once."""
    extra: Mapping[str, str | bool] | None = None
    """Further sbatch options."""

    def parameters(self, name: str, logs: Path, setup: Sequence[str], members: int | None) -> dict[str, Any]:
        """Parameters for submitit: of a job, or of an array of `members` elements."""
        log_name = "%x-%A_%a" if members else "%x-%j"
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
                "output": f"{logs}/{log_name}.out",
                **(self.extra or {}),
            },
        }


def lead_seconds(recipe: Recipe) -> int:
    """Time that the ranks need before a time limit to finish a step, save and exit [s]."""
    return math.ceil(recipe.machine.grace_seconds + SCHEDULER_SECONDS)


def plan_resources(
    members: Sequence[SweepMember],
    *,
    nodes: str = "1",
    nproc: int | None = None,
    gpus: str | None = None,
    time: str | None = None,
    sbatch: Sequence[str] = (),
    **options: Any,
) -> Resources:
    """The resources of each member's job, from the options of `headway submit` and the members' recipes.

    `options` are fields of `Resources` that are passed on as they are.

    Raises:
        UsageError: the options contradict each other or a recipe; names a value that works.
    """
    nodes_min, nodes_max = _node_range(nodes)
    if gpus and not GPUS.match(gpus):
        raise UsageError(f"--gpus {gpus}: write a number per node, or TYPE:NUMBER, such as a100:4")
    gpu_count = int(gpus.rpartition(":")[2]) if gpus else 0
    ranks = nproc or gpu_count or max(member.recipe.machine.ranks for member in members)
    for member in members:
        _check_lanes(member, nodes_max, ranks)
    lead = max(lead_seconds(member.recipe) for member in members)
    if time:
        _check_time(time, lead)
    extra = dict(map(_sbatch_option, sbatch))
    cpus = ranks * max(member.recipe.train.threads for member in members)
    return Resources(
        nodes_min=nodes_min,
        nodes_max=nodes_max,
        ranks=ranks,
        cpus=int(extra.pop("cpus_per_task", cpus)),
        lead=lead,
        gpus=gpus,
        time=time,
        extra=extra,
        **options,
    )


def _node_range(text: str) -> tuple[int, int]:
    """Parses `--nodes MIN:MAX`."""
    match = NODES.match(text)
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise UsageError(f"--nodes {text}: write a number of nodes, or MIN:MAX, such as 1:4")
    return least, most


def _check_lanes(member: SweepMember, nodes: int, ranks: int) -> None:
    """Checks that a batch has a lane for each rank."""
    lanes = member.recipe.train.lanes
    if nodes * ranks > lanes:
        fewer = f"--nodes {lanes // ranks}" if lanes >= ranks else f"--nproc {lanes}"
        raise UsageError(
            f"run {member.run}: {nodes * ranks} ranks ({nodes} nodes of {ranks}) cannot share a batch of {lanes} "
            f"lanes; use at most {fewer}, or start a run with more train.lanes"
        )


def _check_time(text: str, lead: int) -> None:
    """Checks that a time limit is longer than the lead of its signal."""
    try:
        limit = parse_duration(text)
    except ValueError:
        raise UsageError(
            f"--time {text}: write minutes, HH:MM:SS or D-HH:MM:SS in SLURM's syntax: 90, 01:30:00 or 2-12:00:00"
        ) from None
    if limit is not None and limit <= lead:
        raise UsageError(
            f"--time {text} leaves no time to train: the ranks stop {lead} s before the limit "
            f"(machine.grace_seconds, and {SCHEDULER_SECONDS:.0f} s because SLURM checks limits rarely); "
            f"set a longer limit, or a shorter machine.grace_seconds"
        )


def _sbatch_option(text: str) -> tuple[str, str | bool]:
    """Parses `--sbatch KEY=VALUE` or `--sbatch KEY`."""
    match = SBATCH_OPTION.match(text)
    if not match:
        raise UsageError(f"--sbatch {text}: write an option of sbatch, such as mem=32G or exclusive")
    key, value = match.groups()
    if key in OWN_OPTIONS:
        raise UsageError(f"--sbatch {text}: use {OWN_OPTIONS[key]} instead")
    return key.replace("-", "_"), True if value is None else value
