"""Checks before a submission that the cluster can run it, and explains why sbatch rejected one.

sbatch accepts many jobs that can never run, and they stay pending forever; those are rejected here. Accounts and QoS
follow the administrator's rules; for these sbatch's own message is passed on.
"""

import math
import re

from headway.errors import UsageError
from headway.launch import cluster
from headway.launch.resources import Resources
from headway.launch.scontrol import Partition, SlurmNode, parse_duration

ADVICE = {
    "Invalid partition": "Choose with --partition; `sinfo` lists them",
    "Invalid account": "Choose with --account; `sacctmgr show associations user=$USER` lists yours",
    "Invalid qos": "Choose with --qos; `sacctmgr show qos` lists them",
    "Invalid feature": "Choose with --constraint; `sinfo -o '%N %f'` lists the features of the nodes",
    "Invalid node name": "Correct --exclude; `sinfo -N` lists the nodes",
    "unrecognized option": "Correct --sbatch; `man sbatch` lists all options",
    "Requested time limit": "Correct --time; `scontrol show partition` shows MaxTime",
}
"""What to do, by words in sbatch's message."""


def check_resources(resources: Resources) -> None:
    """Checks that at least one of the chosen partitions can run the job.

    Raises:
        UsageError: none can; names the limit.
        ClusterError: SLURM is missing or does not answer.
    """
    partitions = _partitions(resources)
    names = "partition " + " or ".join(each.name for each in partitions)
    limited = not resources.qos  # a QoS may lift a partition's limits
    most = max(min(each.nodes, each.max_nodes or each.nodes) if limited else each.nodes for each in partitions)
    if resources.nodes_min > most:
        raise UsageError(f"--nodes: the job needs at least {resources.nodes_min} nodes, and {names} allows {most}")
    longest = max(math.inf if each.max_seconds is None else each.max_seconds for each in partitions)
    if limited and resources.time and (parse_duration(resources.time) or math.inf) > longest:
        raise UsageError(f"--time {resources.time}: {names} allows {longest / 3600:g} hours at most")
    if resources.cpus > min(each.cpus / max(1, each.nodes) for each in partitions):  # query nodes only if they matter
        largest = max((node.cpus for node in _nodes(partitions)), default=0)
        if resources.cpus > largest:
            raise UsageError(
                f"the job needs {resources.cpus} CPUs per node (ranks times threads), and the largest node of {names} "
                f"has {largest}; use fewer ranks (--nproc)"
            )


def explain_rejection(message: str, resources: Resources) -> UsageError:
    """The error for a submission that sbatch rejected with `message`, with advice."""
    lines = (re.sub(r"^sbatch: (error: )?", "", line) for line in message.splitlines() if line)
    summary = " ".join(dict.fromkeys(lines))
    for words, advice in ADVICE.items():
        if words in summary:
            return UsageError(f"sbatch: {summary}. {advice}")
    if "node configuration is not available" in summary or "Node count specification" in summary:
        return UsageError(f"sbatch: {summary}. {_compare_with_nodes(resources)}")
    if "job array specification" in summary:
        return UsageError(f"sbatch: {summary}. An array has at most {cluster.setting('MaxArraySize')} runs here")
    return UsageError(f"sbatch: {summary}")


def _partitions(resources: Resources) -> list[Partition]:
    """The partitions that the job may run in."""
    existing = {each.name: each for each in cluster.partitions()}
    visible = ", ".join(f"{each.name} ({each.nodes} nodes)" for each in existing.values() if not each.hidden) or "none"
    default = [each.name for each in existing.values() if each.default]
    names = resources.partition.split(",") if resources.partition else default
    if not names:
        raise UsageError(f"this cluster has no default partition; choose with --partition: {visible}")
    if unknown := [name for name in names if name not in existing]:
        raise UsageError(f"--partition: there is no partition {unknown[0]}; there are: {visible}")
    return [existing[name] for name in names]


def _nodes(partitions: list[Partition]) -> list[SlurmNode]:
    """The nodes of the partitions."""
    names = {each.name for each in partitions}
    return [node for node in cluster.nodes() if names.intersection(node.partitions)]


def _compare_with_nodes(resources: Resources) -> str:
    """The requested resources per node beside those of the nodes."""
    partitions = _partitions(resources)
    nodes = _nodes(partitions)
    gpus = [node.gpus for node in nodes if node.gpus]
    with_gpus = f"{len(gpus)} of them have GPUs, {max(gpus)} at most" if gpus else "none has GPUs"
    cpus, memory = max(node.cpus for node in nodes), max(node.memory_mib for node in nodes)
    per_node = f"{resources.cpus} CPUs" + (f" and {resources.gpus} GPUs" if resources.gpus else "")
    return (
        f"Requested: {resources.nodes_min} nodes with {per_node} each. "
        f"Partition {' or '.join(each.name for each in partitions)} "
        f"has {len(nodes)} nodes; {with_gpus}; at most {cpus} CPUs and {memory:,} MiB of memory"
    )
