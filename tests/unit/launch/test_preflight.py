"""What no partition could ever run is refused before SLURM takes it, and only that."""

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
ASKED = Resources(nodes_min=1, nodes_max=1, ranks=1, cpus=1, lead=60, partition="grace")


@pytest.fixture(autouse=True)
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster with these partitions, and nodes of 8 and of 16 CPUs."""
    node = SlurmNode.parse(NODE)
    nodes = [node, replace(node, name="fat", cpus=16, partitions=["large"])]
    monkeypatch.setattr(cluster, "partitions", lambda: [SMALL, LARGE, SECRET])
    monkeypatch.setattr(cluster, "nodes", lambda: nodes)


@pytest.mark.parametrize(
    "asked",
    [
        ASKED,
        replace(ASKED, nodes_min=3, nodes_max=30),
        replace(ASKED, time="1-00:00:00"),
        replace(ASKED, time="2-00:00:00", qos="long"),
        replace(ASKED, partition="large", nodes_min=9, nodes_max=9, qos="wide"),
        replace(ASKED, cpus=8),
        replace(ASKED, partition="large", cpus=16),
        replace(ASKED, partition="grace,large", nodes_min=4, time="5-00:00:00"),
        replace(ASKED, partition="secret"),
    ],
)
def test_what_could_run_is_let_through(asked: Resources) -> None:
    """In any of several partitions; a QoS may lift limits, a hidden partition may be this user's."""
    preflight.foresee(asked)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (replace(ASKED, partition="nix"), r"no partition nix; there are: grace \(3 nodes\), large \(9 nodes\)$"),
        (replace(ASKED, partition=None), "no default partition; choose with --partition: grace"),
        (replace(ASKED, nodes_min=4, nodes_max=4), "at least 4 nodes are asked for, and partition grace lends 3"),
        (replace(ASKED, partition="large", nodes_min=5), "partition large lends 4"),
        (replace(ASKED, time="1-00:00:01"), "--time 1-00:00:01: partition grace allows 24 hours at most"),
        (replace(ASKED, time="UNLIMITED"), "--time UNLIMITED: partition grace allows 24 hours at most"),
        (replace(ASKED, cpus=9), "9 CPUs on each node are asked for .* the largest of partition grace has 8"),
    ],
)
def test_what_could_never_run_is_refused(asked: Resources, complaint: str) -> None:
    """With what there is instead."""
    with pytest.raises(UsageError, match=complaint):
        preflight.foresee(asked)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination", "sacctmgr"),
        (
            "sbatch: error: invalid partition specified: x\nsbatch: error: Invalid partition name",
            "Choose with --partition",
        ),
        ("sbatch: error: Batch job submission failed: Job violates accounting/QOS policy", "accounting/QOS policy"),
    ],
)
def test_what_sbatch_says_is_passed_on_with_advice(said: str, advice: str) -> None:
    """In its words, without its prefixes; what is not known is passed on as it is."""
    told = str(preflight.explain(said, ASKED))
    assert told.startswith("sbatch: ")
    assert "error:" not in told
    assert advice in told
