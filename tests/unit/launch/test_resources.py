"""Resources follow from the recipes and the options, and contradictions are rejected."""

from pathlib import Path
from typing import Any

import pytest

from headway.errors import UsageError
from headway.launch.resources import Resources, plan_resources
from headway.launch.sweep import SweepMember, sweep_members
from headway.recipe import RecipeDocument

TEXT = """
name: slm
model: {layers: 1, width: 16, heads: 2, kv_heads: 1, ffn_width: 32}
data: {block_tokens: 512}
train: {tokens: 8192, batch_tokens: 4096, micro_batch_tokens: 512, lanes: 8, threads: 2}
machine: {ranks: 2, grace_seconds: 30}
"""


def members(*overrides: str, array: tuple[str, ...] = ()) -> list[SweepMember]:
    """Members of an array, or one run."""
    return sweep_members(RecipeDocument(TEXT), overrides, array)


def planned(**words: Any) -> Resources:
    """The resources of one run of the recipe."""
    return plan_resources(members(), **words)


def test_what_nobody_said_follows_from_the_recipe() -> None:
    """The recipe determines ranks, CPUs, and the lead of the signal before a time limit."""
    resources = planned()
    assert (resources.nodes_min, resources.nodes_max, resources.ranks, resources.cpus, resources.lead) == (
        1,
        1,
        2,
        4,
        90,
    )


def test_a_rank_for_each_gpu() -> None:
    """The number of GPUs, with or without a type, sets the ranks; --nproc overrides it."""
    assert planned(gpus="4").ranks == 4
    assert (planned(gpus="a100:4").ranks, planned(gpus="a100:4").gpus) == (4, "a100:4")
    assert planned(gpus="4", nproc=2).ranks == 2


def test_an_array_gets_what_its_largest_member_needs() -> None:
    """All elements of an array have the same resources."""
    resources = plan_resources(
        members(array=("machine.ranks=1,3", "train.threads=1,4", "machine.grace_seconds=10.0,100.5"))
    )
    assert (resources.ranks, resources.cpus, resources.lead) == (3, 12, 161)


@pytest.mark.parametrize(("nodes", "expected"), [("3", (3, 3)), ("1:4", (1, 4)), ("2-4", (2, 4))])
def test_nodes_are_a_number_or_a_range(nodes: str, expected: tuple[int, int]) -> None:
    """A range is MIN:MAX, or MIN-MAX as in SLURM."""
    resources = planned(nodes=nodes)
    assert (resources.nodes_min, resources.nodes_max) == expected


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"nodes": "0"}, "MIN:MAX"),
        ({"nodes": "4:2"}, "MIN:MAX"),
        ({"nodes": "many"}, "MIN:MAX"),
        ({"gpus": "all"}, "TYPE:NUMBER"),
        ({"time": "2h"}, "HH:MM:SS"),
        ({"time": "1:30"}, "leaves no time to train: the ranks stop 90 s before"),
        ({"nodes": "1:5"}, "10 ranks .5 nodes of 2. cannot share a batch of 8 lanes; use at most --nodes 4"),
        ({"nproc": 9}, "9 ranks .1 nodes of 9. cannot share a batch of 8 lanes; use at most --nproc 8"),
        ({"sbatch": ["array=1-3"]}, "--array and --parallel"),
        ({"sbatch": ["--signal=USR1@5"]}, "a batch file of your own"),
        ({"sbatch": ["?"]}, "mem=32G"),
    ],
)
def test_what_cannot_be_is_refused(words: dict[str, Any], complaint: str) -> None:
    """The error says what to write instead."""
    with pytest.raises(UsageError, match=complaint):
        planned(**words)


def test_the_member_that_does_not_fit_is_named() -> None:
    """One member of an array has fewer lanes than the others."""
    with pytest.raises(UsageError, match=r"run slm\.lanes-1: 2 ranks"):
        plan_resources(members(array=("train.lanes=4,1",)))


def test_anything_else_is_passed_on_in_sbatchs_words() -> None:
    """Options may have dashes and values; `cpus-per-task` sets the CPUs."""
    resources = planned(sbatch=["mem=32G", "--exclusive", "cpus-per-task=7", "comment=a=b"])
    assert resources.extra == {"mem": "32G", "exclusive": True, "comment": "a=b"}
    assert resources.cpus == 7


def test_parameters_are_those_of_a_job_that_comes_back() -> None:
    """The job is requeued, warned early and appends to its log; an array is throttled by --parallel."""
    parameters = planned(nodes="1:4", time="2-00:00:00", partition="main", parallel=3).parameters(
        "slm", Path("/l"), [], 10
    )
    more = parameters["additional_parameters"]
    assert more == {
        "nodes": "1-4",
        "signal": "TERM@90",
        "requeue": True,
        "no-kill": True,
        "open-mode": "append",
        "output": "/l/%x-%A_%a.out",
    }
    assert (parameters["cpus_per_task"], parameters["array_parallelism"]) == (4, 3)
    assert (parameters["time"], parameters["partition"], parameters["qos"], parameters["use_srun"]) == (
        "2-00:00:00",
        "main",
        None,
        False,
    )
    assert planned().parameters("slm", Path("/l"), [], None)["additional_parameters"]["output"] == "/l/%x-%j.out"
