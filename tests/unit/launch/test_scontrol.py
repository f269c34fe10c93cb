"""scontrol's lines are parsed for any job name and any form of an array."""

from datetime import UTC, datetime

import pytest
from tests.unit.launch.answers import ELEMENT, NODE, PARTITION, PLAIN, WAITING

from headway.launch.scontrol import Partition, SlurmNode, array_indices, expand_node_list, parse_duration, parse_jobs


def at(text: str) -> float:
    """A time in seconds since 1970."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_a_job_is_read_whatever_it_is_called() -> None:
    """A job name that looks like fields changes nothing."""
    (job,) = parse_jobs(PLAIN)
    assert (job.id, job.raw_id, job.state, job.reason, job.restarts) == ("5934", "5934", "RUNNING", "", 2)
    assert job.name == "a b JobState=X UserId=z(1) GroupId=q"
    assert (job.node_list, job.batch_host, job.array_id, job.array_index) == ("node[1-2]", "node1", None, None)
    assert (job.submit_time, job.start_time) == (at("2026-11-21T16:05:36"), at("2026-11-21T16:05:37"))
    assert (job.end_time, job.preempt_time) == (at("2027-11-21T16:05:37"), None)
    assert job.fields["TRES"] == "cpu=1,node=1,billing=1"
    assert job.fields["WorkDir"] == "/my folder"
    assert job.is_running
    assert not job.is_pending


def test_elements_that_wait_share_a_line() -> None:
    """Each element becomes a job."""
    jobs = parse_jobs(WAITING)
    assert [job.id for job in jobs] == [f"5935_{index}" for index in (2, 3, 4, 5, 6, 8, 10, 504, 998)]
    assert {(job.state, job.reason, job.node_list, job.start_time) for job in jobs} == {
        ("PENDING", "JobArrayTaskLimit", "", None)
    }
    assert all(job.is_pending and not job.is_running for job in jobs)
    assert (jobs[5].array_id, jobs[5].array_index) == ("5935", 8)


def test_an_element_that_began_has_a_line_of_its_own() -> None:
    """Its ID is that of the array with its index; exit code, signal and preemption are separate."""
    (job,) = parse_jobs(ELEMENT)
    assert (job.id, job.raw_id, job.exit_code, job.exit_signal) == ("5935_7", "5942", 1, 15)
    assert (job.node_list, job.preempt_time) == ("", at("2026-11-21T16:05:38"))
    assert not job.is_pending
    assert not job.is_running


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
    """Ranges, steps and the throttle are parsed."""
    assert list(array_indices(text)) == expected


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
    """Time limits become seconds; None is unlimited."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["abc", "", "1:2:3:4", "-5", "1-", "2h", "1 "])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Malformed time limits are rejected."""
    with pytest.raises(ValueError, match="not a time limit"):
        parse_duration(text)


def test_a_node_and_a_partition_are_read() -> None:
    """The fields that a rejection explains are parsed."""
    node = SlurmNode.parse(NODE)
    assert (node.name, node.cpus, node.memory_mib, node.gpus) == ("node1", 8, 8000, 2)
    assert node.partitions == ["main", "grace", "high"]
    partition = Partition.parse(PARTITION.replace("MaxTime=UNLIMITED", "MaxTime=1-00:00:00"))
    assert (partition.name, partition.default, partition.nodes, partition.cpus) == ("grace", False, 3, 24)
    assert (partition.max_nodes, partition.max_seconds) == (None, 86_400)


@pytest.mark.parametrize(
    ("gres", "gpus"), [("(null)", 0), ("gpu:8", 8), ("gpu:a100:4(S:0-1),gpu:h100:2", 6), ("nic:1,gpu:1", 1)]
)
def test_gpus_of_all_types_are_counted(gres: str, gpus: int) -> None:
    """GPUs are counted with and without a type or sockets."""
    assert SlurmNode.parse(NODE.replace("gpu:fake:2", gres)).gpus == gpus


def test_a_plain_list_of_hosts_needs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only compact lists need `scontrol show hostnames`."""
    monkeypatch.setenv("PATH", "")
    assert expand_node_list("node1,login") == ["node1", "login"]
    assert expand_node_list("") == []
