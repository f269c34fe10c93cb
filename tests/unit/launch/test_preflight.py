"""Jobs that no partition could ever run are rejected before SLURM accepts them, and only those."""

from dataclasses import replace

import pytest
from tests.unit.launch.answers import NODE, PARTITION

from headway.errors import UsageError
from headway.launch import cluster, preflight
from headway.launch.resources import Resources
from headway.launch.scontrol import Partition, SlurmNode

SMALL = Partition.parse(PARTITION.replace("MaxTime=UNLIMITED", "MaxTime=1-00:00:00"))
"""Three nodes, 24 CPUs, a day."""
LARGE = replace(SMALL, name="large", nodes=9, max_nodes=4, cpus=90, max_seconds=None)
SECRET = replace(SMALL, name="secret", hidden=True)
RESOURCES = Resources(nodes_min=1, nodes_max=1, ranks=1, cpus=1, lead=60, partition="grace")


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster with these partitions, and nodes of 8 and of 16 CPUs."""
    node = SlurmNode.parse(NODE)
    nodes = [node, replace(node, name="fat", cpus=16, partitions=["large"])]
    monkeypatch.setattr(cluster, "partitions", lambda: [SMALL, LARGE, SECRET])
    monkeypatch.setattr(cluster, "nodes", lambda: nodes)


@pytest.mark.parametrize(
    "resources",
    [
        RESOURCES,
        replace(RESOURCES, nodes_min=3, nodes_max=30),
        replace(RESOURCES, time="1-00:00:00"),
        replace(RESOURCES, time="2-00:00:00", qos="long"),
        replace(RESOURCES, partition="large", nodes_min=9, nodes_max=9, qos="wide"),
        replace(RESOURCES, cpus=8),
        replace(RESOURCES, partition="large", cpus=16),
        replace(RESOURCES, partition="grace,large", nodes_min=4, time="5-00:00:00"),
        replace(RESOURCES, partition="secret"),
    ],
)
def test_what_could_run_is_let_through(resources: Resources) -> None:
    """One of several partitions is enough; a QoS may lift limits, and a hidden partition may be the user's."""
    preflight.check_resources(resources)


@pytest.mark.parametrize(
    ("resources", "complaint"),
    [
        (replace(RESOURCES, partition="nix"), r"no partition nix; there are: grace \(3 nodes\), large \(9 nodes\)$"),
        (replace(RESOURCES, partition=None), "no default partition; choose with --partition: grace"),
        (replace(RESOURCES, nodes_min=4, nodes_max=4), "needs at least 4 nodes, and partition grace allows 3"),
        (replace(RESOURCES, partition="large", nodes_min=5), "partition large allows 4"),
        (replace(RESOURCES, time="1-00:00:01"), "--time 1-00:00:01: partition grace allows 24 hours at most"),
        (replace(RESOURCES, time="UNLIMITED"), "--time UNLIMITED: partition grace allows 24 hours at most"),
        (replace(RESOURCES, cpus=9), "needs 9 CPUs per node .* the largest node of partition grace has 8"),
    ],
)
def test_what_could_never_run_is_refused(resources: Resources, complaint: str) -> None:
    """The error names the limit."""
    with pytest.raises(UsageError, match=complaint):
        preflight.check_resources(resources)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination", "sacctmgr"),
        (
            "sbatch: error: invalid partition specified: x\nsbatch: error: Invalid partition name",
            "Choose with --partition",
        ),
        ("sbatch: error: Batch job submission failed: Job violates accounting/QOS policy", "accounting/QOS policy"),
    ],
)
def test_what_sbatch_says_is_passed_on_with_advice(message: str, advice: str) -> None:
    """The message of sbatch is passed on without its prefixes; unknown messages are passed on unchanged."""
    error = str(preflight.explain_rejection(message, RESOURCES))
    assert error.startswith("sbatch: ")
    assert "error:" not in error
    assert advice in error
