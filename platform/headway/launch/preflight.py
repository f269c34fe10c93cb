"""Why SLURM will not run what it is asked for, said with what there is instead.

Much that can never run sbatch takes all the same, and the job waits for ever: that is seen before. Account and QoS are
the administrator's rules; of those only sbatch's own words are passed on.
"""

import math
import re

from headway.errors import UsageError
from headway.launch import cluster
from headway.launch.cluster import Partition
from headway.launch.resources import Resources
from headway.launch.scontrol import duration


def foresee(asked: Resources) -> None:
    """See that some partition could ever run what is asked for.

    Raises:
        UsageError: none could; says what there is.
        ClusterError: SLURM is not there, or does not answer.
    """
    chosen = _chosen(asked)
    where = "partition " + " or ".join(each.name for each in chosen)
    limited = not asked.qos  # a QoS may lift a partition's own limits
    most = max(min(each.nodes, each.max_nodes or each.nodes) if limited else each.nodes for each in chosen)
    if asked.nodes_min > most:
        raise UsageError(f"--nodes: at least {asked.nodes_min} nodes are asked for, and {where} lends {most} at most")
    longest = max(math.inf if each.max_seconds is None else each.max_seconds for each in chosen)
    if limited and asked.time and (duration(asked.time) or math.inf) > longest:
        raise UsageError(f"--time {asked.time}: {where} allows {longest / 3600:g} hours at most")
    if asked.cpus > min(each.cpus / max(1, each.nodes) for each in chosen):  # nodes differ: only then look at each
        largest = max((node.cpus for node in _nodes(chosen)), default=0)
        if asked.cpus > largest:
            raise UsageError(
                f"{asked.cpus} CPUs on each node are asked for (ranks by threads), and the largest of {where} has "
                f"{largest}; ask for fewer ranks (--nproc)"
            )


def explain(said: str, asked: Resources) -> UsageError:
    """What to tell whoever submitted, from what sbatch said when it refused."""
    gist = " ".join(dict.fromkeys(re.sub(r"^sbatch: (error: )?", "", line) for line in said.splitlines() if line))
    for words, advice in ADVICE.items():
        if words in gist:
            return UsageError(f"sbatch: {gist}. {advice}")
    if "node configuration is not available" in gist or "Node count specification" in gist:
        return UsageError(f"sbatch: {gist}. {_stock(asked)}")
    if "job array specification" in gist:
        return UsageError(f"sbatch: {gist}. An array has at most {cluster.setting('MaxArraySize')} runs here")
    return UsageError(f"sbatch: {gist}")


ADVICE = {
    "Invalid partition": "Choose with --partition; `sinfo` lists them",
    "Invalid account": "Choose with --account; `sacctmgr show associations user=$USER` lists yours",
    "Invalid qos": "Choose with --qos; `sacctmgr show qos` lists them",
    "Invalid feature": "Choose with --constraint; `sinfo -o '%N %f'` lists what nodes have",
    "Invalid node name": "Correct --exclude; `sinfo -N` lists the nodes",
    "unrecognized option": "Correct --sbatch; `man sbatch` lists all options",
    "Requested time limit": "Correct --time; `scontrol show partition` says MaxTime",
}
"""What to do, by sbatch's words."""


def _chosen(asked: Resources) -> list[Partition]:
    """The partitions that it may run in."""
    there = cluster.partitions()
    wanted = asked.partition.split(",") if asked.partition else [each.name for each in there if each.default]
    known = {each.name: each for each in there}
    named = ", ".join(f"{each.name} ({each.nodes} nodes)" for each in there if not each.hidden) or "none"
    if not wanted:
        raise UsageError(f"this cluster has no default partition; choose with --partition: {named}")
    if strangers := [name for name in wanted if name not in known]:
        raise UsageError(f"--partition: there is no partition {strangers[0]}; there are: {named}")
    return [known[name] for name in wanted]


def _nodes(chosen: list[Partition]) -> list[cluster.SlurmNode]:
    names = {each.name for each in chosen}
    return [node for node in cluster.nodes() if names.intersection(node.partitions)]


def _stock(asked: Resources) -> str:
    """What the nodes have, for somebody who asked for what none has."""
    chosen = _chosen(asked)
    nodes = _nodes(chosen)
    gpus = [node.gpus for node in nodes if node.gpus]
    having = f"{len(gpus)} of them have GPUs, {max(gpus)} at most" if gpus else "none has GPUs"
    cpus, memory = max(node.cpus for node in nodes), max(node.memory for node in nodes)
    wanted = f"{asked.cpus} CPUs" + (f" and {asked.gpus} GPUs" if asked.gpus else "")
    return (
        f"Asked for: {asked.nodes_min} nodes with {wanted} each. Partition {' or '.join(each.name for each in chosen)} "
        f"has {len(nodes)} nodes; {having}; at most {cpus} CPUs and {memory:,} MiB of memory"
    )
