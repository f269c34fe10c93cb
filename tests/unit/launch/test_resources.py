"""What is asked of SLURM follows from the recipes and from what one says, and is refused if it cannot be."""

from pathlib import Path
from typing import Any

import pytest

from headway.errors import UsageError
from headway.launch.resources import Resources, resources
from headway.launch.sweep import SweepMember, sweep_members
from headway.recipe import RecipeDocument

TEXT = """
name: slm
model: {layers: 1, width: 16, heads: 2, kv_heads: 1, ffn_width: 32}
data: {block_tokens: 512}
train: {tokens: 8192, batch_tokens: 4096, micro_batch_tokens: 512, lanes: 8, threads: 2}
machine: {ranks: 2, grace_seconds: 30}
"""


def wanted(*overrides: str, array: tuple[str, ...] = ()) -> list[SweepMember]:
    """Members of an array, or one run."""
    return sweep_members(RecipeDocument(TEXT), overrides, array)


def asked(**words: Any) -> Resources:
    """What a run of the recipe asks for."""
    return resources(wanted(), **words)


def test_what_nobody_said_follows_from_the_recipe() -> None:
    """Ranks, CPUs for their threads, and how early a time limit is told of."""
    found = asked()
    assert (found.nodes_min, found.nodes_max, found.ranks, found.cpus, found.lead) == (1, 1, 2, 4, 90)


def test_a_rank_for_each_gpu() -> None:
    """With or without their type; --nproc says otherwise."""
    assert asked(gpus="4").ranks == 4
    assert (asked(gpus="a100:4").ranks, asked(gpus="a100:4").gpus) == (4, "a100:4")
    assert asked(gpus="4", nproc=2).ranks == 2


def test_an_array_gets_what_its_largest_member_needs() -> None:
    """All its elements ask for the same."""
    found = resources(wanted(array=("machine.ranks=1,3", "train.threads=1,4", "machine.grace_seconds=10.0,100.5")))
    assert (found.ranks, found.cpus, found.lead) == (3, 12, 161)


@pytest.mark.parametrize(("nodes", "expected"), [("3", (3, 3)), ("1:4", (1, 4)), ("2-4", (2, 4))])
def test_nodes_are_a_number_or_a_range(nodes: str, expected: tuple[int, int]) -> None:
    """MIN:MAX, or as SLURM writes it."""
    found = asked(nodes=nodes)
    assert (found.nodes_min, found.nodes_max) == expected


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"nodes": "0"}, "MIN:MAX"),
        ({"nodes": "4:2"}, "MIN:MAX"),
        ({"nodes": "many"}, "MIN:MAX"),
        ({"gpus": "all"}, "TYPE:NUMBER"),
        ({"time": "2h"}, "HH:MM:SS"),
        ({"time": "1:30"}, "leaves no time to train: the ranks are told 90 s before"),
        ({"nodes": "1:5"}, "10 ranks .5 nodes of 2. cannot share a batch of 8 lanes; ask for at most --nodes 4"),
        ({"nproc": 9}, "9 ranks .1 nodes of 9. cannot share a batch of 8 lanes; ask for at most --nproc 8"),
        ({"extra": ["array=1-3"]}, "--array and --parallel"),
        ({"extra": ["--signal=USR1@5"]}, "a file of your own"),
        ({"extra": ["?"]}, "mem=32G"),
    ],
)
def test_what_cannot_be_is_refused(words: dict[str, Any], complaint: str) -> None:
    """It is said what could."""
    with pytest.raises(UsageError, match=complaint):
        asked(**words)


def test_the_member_that_does_not_fit_is_named() -> None:
    """One member of an array has fewer lanes than the others."""
    with pytest.raises(UsageError, match=r"run slm\.lanes-1: 2 ranks"):
        resources(wanted(array=("train.lanes=4,1",)))


def test_anything_else_is_passed_on_in_sbatchs_words() -> None:
    """With or without dashes and values; CPUs said there are the CPUs asked for."""
    found = asked(extra=["mem=32G", "--exclusive", "cpus-per-task=7", "comment=a=b"])
    assert found.extra == {"mem": "32G", "exclusive": True, "comment": "a=b"}
    assert found.cpus == 7


def test_parameters_are_those_of_a_job_that_comes_back() -> None:
    """Requeued, told early, one task a node, log appended; an array throttled as one says."""
    found = asked(nodes="1:4", time="2-00:00:00", partition="main", parallel=3).parameters("slm", Path("/l"), [], 10)
    more = found["additional_parameters"]
    assert more == {
        "nodes": "1-4",
        "signal": "TERM@90",
        "requeue": True,
        "no-kill": True,
        "open-mode": "append",
        "output": "/l/%x-%A_%a.out",
    }
    assert (found["cpus_per_task"], found["array_parallelism"]) == (4, 3)
    assert (found["time"], found["partition"], found["qos"], found["use_srun"]) == ("2-00:00:00", "main", None, False)
    assert asked().parameters("slm", Path("/l"), [], None)["additional_parameters"]["output"] == "/l/%x-%j.out"
