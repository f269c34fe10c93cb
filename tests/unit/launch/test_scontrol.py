"""SLURM's records are read as they are, whatever a job is called and however its array is folded."""

from datetime import UTC, datetime

import pytest
from tests.unit.launch.answers import ELEMENT, NODE, PARTITION, PLAIN, WAITING

from headway.launch.scontrol import Partition, SlurmNode, duration, hosts, indices, jobs_of


def at(text: str) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_a_job_is_read_whatever_it_is_called() -> None:
    """A name that looks like fields of its own changes nothing."""
    (job,) = jobs_of(PLAIN)
    assert (job.id, job.raw, job.state, job.reason, job.restarts) == ("5934", "5934", "RUNNING", "", 2)
    assert job.name == "a b JobState=X UserId=z(1) GroupId=q"
    assert (job.node_list, job.batch_host, job.array, job.index) == ("node[1-2]", "node1", None, None)
    assert (job.submitted, job.started) == (at("2026-11-21T16:05:36"), at("2026-11-21T16:05:37"))
    assert (job.ends, job.preempted) == (at("2027-11-21T16:05:37"), None)
    assert job.fields["TRES"] == "cpu=1,node=1,billing=1"
    assert job.fields["WorkDir"] == "/my folder"
    assert job.runs
    assert not job.waits


def test_elements_that_wait_share_a_line() -> None:
    """Each of them becomes a job of its own."""
    jobs = jobs_of(WAITING)
    assert [job.id for job in jobs] == [f"5935_{index}" for index in (2, 3, 4, 5, 6, 8, 10, 504, 998)]
    assert {(job.state, job.reason, job.node_list, job.started) for job in jobs} == {
        ("PENDING", "JobArrayTaskLimit", "", None)
    }
    assert all(job.waits and not job.runs for job in jobs)
    assert (jobs[5].array, jobs[5].index) == ("5935", 8)


def test_an_element_that_began_has_a_line_of_its_own() -> None:
    """Its id for commands is that of the array with its index; exit code, signal and preemption are told apart."""
    (job,) = jobs_of(ELEMENT)
    assert (job.id, job.raw, job.exit_code, job.exit_signal) == ("5935_7", "5942", 1, 15)
    assert (job.node_list, job.preempted) == ("", at("2026-11-21T16:05:38"))
    assert not job.waits
    assert not job.runs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", [7]),
        ("0-3%2", [0, 1, 2, 3]),
        ("1,3-5,9", [1, 3, 4, 5, 9]),
        ("0-8:4,20-24:2%1", [0, 4, 8, 20, 22, 24]),
    ],
)
def test_indices_of_an_array_are_written_out(text: str, expected: list[int]) -> None:
    """Ranges, steps and the throttle."""
    assert list(indices(text)) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("01:30:00", 5400),
        ("2-12", 216_000),
        ("2-12:30", 217_800),
        ("2-00:00:05", 172_805),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_times_are_read_as_slurm_writes_them(text: str, seconds: float | None) -> None:
    """In seconds; None is without end."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["abc", "", "1:2:3:4", "-5", "1-", "2h", "1 "])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="no time"):
        duration(text)


def test_a_node_and_a_partition_are_read() -> None:
    """What somebody must know who asked for too much."""
    node = SlurmNode.parse(NODE)
    assert (node.name, node.cpus, node.memory, node.gpus) == ("node1", 8, 8000, 2)
    assert node.partitions == ["main", "grace", "high"]
    partition = Partition.parse(PARTITION.replace("MaxTime=UNLIMITED", "MaxTime=1-00:00:00"))
    assert (partition.name, partition.default, partition.nodes, partition.cpus) == ("grace", False, 3, 24)
    assert (partition.max_nodes, partition.max_seconds) == (None, 86_400)


@pytest.mark.parametrize(
    ("gres", "gpus"), [("(null)", 0), ("gpu:8", 8), ("gpu:a100:4(S:0-1),gpu:h100:2", 6), ("nic:1,gpu:1", 1)]
)
def test_gpus_of_all_types_are_counted(gres: str, gpus: int) -> None:
    """With and without type, and where they sit."""
    assert SlurmNode.parse(NODE.replace("gpu:fake:2", gres)).gpus == gpus


def test_a_plain_list_of_hosts_needs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only brackets are for `scontrol show hostnames`."""
    monkeypatch.setenv("PATH", "")
    assert hosts("node1,login") == ["node1", "login"]
    assert hosts("") == []
