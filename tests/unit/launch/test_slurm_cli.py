"""SLURM's programs: their output, signals during a call, and their absence."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.errors import ClusterError
from headway.launch import cluster, slurm_cli

Place = Callable[[str, str], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Puts a shell script on PATH under the name of one of SLURM's programs."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return put


def test_a_signal_for_the_whole_job_does_not_end_a_question(place: Place) -> None:
    """TERM, USR1, USR2 and INT reach every process of a job; a running query still completes."""
    place("scontrol", "for signal in TERM USR1 USR2 INT; do kill -$signal $$; done; echo survived")
    assert slurm_cli.run_slurm("scontrol") == "survived\n"


def test_the_signals_of_this_process_are_as_they_were(place: Place) -> None:
    """A call leaves no signal blocked."""
    place("scontrol", "true")
    slurm_cli.run_slurm("scontrol")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_answers_do_not_depend_on_who_asks(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are in UTC and in one format, and lists are complete."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    place("scontrol", 'echo "$TZ $SLURM_TIME_FORMAT $SLURM_BITSTR_LEN"')
    assert slurm_cli.run_slurm("scontrol") == "UTC0 standard 0\n"


def test_without_slurm_it_is_said_where_to_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error on a machine without SLURM names a login node."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"scontrol cannot be run .* this machine has no SLURM.*login node"):
        cluster.jobs(["1"])


def test_a_controller_that_is_down_is_named(place: Place) -> None:
    """The error says how to check slurmctld, and whom to ask."""
    place("scontrol", "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(ClusterError, match=r"Unable to contact slurm controller.*scontrol ping"):
        cluster.jobs(["1"])


def test_a_program_that_hangs_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not answer in time is killed, and the error says so."""
    monkeypatch.setattr(slurm_cli, "TIMEOUT_SECONDS", 0.2)
    place("scontrol", "exec sleep 60")
    with pytest.raises(ClusterError, match="did not answer scontrol"):
        cluster.jobs(["1"])


@pytest.mark.parametrize("complaint", ["slurm_load_jobs error: Invalid job id specified", "Job 5935_7 not found"])
def test_a_job_that_slurm_has_forgotten_is_none(place: Place, complaint: str) -> None:
    """An unknown job is not an error."""
    place("scontrol", f"echo '{complaint}' >&2; exit 1")
    assert cluster.jobs(["5935"]) == []
    assert cluster.job("5935_7") is None


def test_what_slurm_refuses_is_passed_on(place: Place) -> None:
    """SLURM's message is passed on once, in its own words."""
    place("scontrol", "echo 'scontrol: error: Job is pending execution' >&2; exit 1")
    with pytest.raises(ClusterError, match="scontrol requeue 5_1: Job is pending execution"):
        cluster.requeue("5_1")
