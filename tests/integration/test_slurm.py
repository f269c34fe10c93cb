"""On a real SLURM cluster, whatever ends a job: unattended, the run goes on to the bits of the uninterrupted one."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headway.telemetry import spans, traces
from headway.telemetry.metrics_server import LINGER_VARIABLE, TARGETS_VARIABLE
from tests.engines.slurm.cluster import Cluster
from tests.engines.slurm.hosts import available
from tests.integration.site import LONG, Site, Submitted, tokens_lost
from tests.integration.training import Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.spread,
    pytest.mark.skipif(not available(), reason="machines of their own need root and network namespaces"),
]


@pytest.fixture
def site(built: Path, tmp_path: Path) -> Iterator[Site]:
    """A cluster of three machines, and a store in a folder that they share."""
    with Cluster(tmp_path / "slurm", 3, hosts=True, slurmd_timeout=6) as cluster:
        yield Site(cluster, Place(built / "tiny.yaml", tmp_path / "my store"), tmp_path)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for spans and targets, of jobs submitted now."""
    monkeypatch.delenv(traces.TRACE_VARIABLE, raising=False)
    monkeypatch.setenv(spans.FILE_VARIABLE, str(tmp_path / "spans.jsonl"))
    monkeypatch.setenv(TARGETS_VARIABLE, str(tmp_path / "targets"))
    monkeypatch.setenv(LINGER_VARIABLE, "1")
    return tmp_path


def preempt(job: Submitted) -> None:
    """A job of a higher partition takes all machines, for a moment."""
    job.site.cluster.client(
        "sbatch", "--partition=high", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap", "true"
    )


def requeue(job: Submitted) -> None:
    """Somebody else's hand."""
    job.site.cluster.client("scontrol", "requeue", job.job)


@pytest.mark.parametrize(
    ("partition", "stops"),
    [("main", [preempt]), ("grace", [preempt, requeue])],
    ids=["preempted at once", "preempted with grace and requeued by hand"],
)
def test_a_signalled_job_goes_on_by_itself(
    site: Site, uninterrupted: str, partition: str, stops: list[Callable[[Submitted], None]], watched: Path
) -> None:
    """It saves, is queued anew, and ends with the bits of the uninterrupted run; no token is trained twice.

    All of it is one trace, which began with `headway submit`; Prometheus knows where the run is, until it is over.
    """
    options = ["--nodes", "2", "--partition", partition]
    job = site.submit("run", *LONG, "machine.hang_seconds=600.0", options=options)
    for attempt, stop in enumerate(stops, start=1):
        job.await_steps(5, attempt)
        assert [file.name for file in (watched / "targets").iterdir()] == ["run.json"]
        job.freeze()  # SLURM wakes what it signals
        stop(job)
    assert job.await_end()["Restarts"] == str(len(stops))
    assert site.place.fingerprint("run") == uninterrupted
    assert [attempt.outcome for attempt in site.place.history("run").attempts] == ["preempted"] * len(stops) + ["done"]
    assert set(tokens_lost(job).values()) == {0}
    first, *others = (json.loads(line) for line in (watched / "spans.jsonl").read_text(encoding="utf-8").splitlines())
    assert (first["name"], first["parent"]) == ("launch.submit", None)
    assert {(span["trace_id"], span["parent"]) for span in others} == {(first["trace_id"], first["span_id"])}
    assert [span["name"] for span in others].count("train.startup") == 1 + len(stops)
    assert {event["trace_id"] for event in job.events} == {first["trace_id"]}
    assert list((watched / "targets").iterdir()) == []


def test_a_cancelled_job_stays_cancelled_until_it_is_requeued(site: Site, uninterrupted: str) -> None:
    """`headway cancel` saves everything and SLURM keeps its peace; `headway requeue` goes on from there."""
    job = site.submit("run", *LONG, "machine.hang_seconds=600.0", options=["--nodes", "1:2"])
    job.await_event("step.done", 5)
    job.freeze()
    job.cancel()
    job.await_end("CANCELLED")
    assert job.named("job.verdict")[-1]["why"] == "the job was cancelled"
    assert site.place.history("run").attempts[-1].outcome == "preempted"
    again = Submitted(site, "run", site.run("requeue", "run")["job"])
    again.await_end()
    assert site.place.fingerprint("run") == uninterrupted
    assert set(tokens_lost(again).values()) | set(tokens_lost(job).values()) == {0}


def test_a_time_limit_is_met_with_everything_saved(site: Site, uninterrupted: str) -> None:
    """SLURM signals ahead of the limit; the run goes on in another allocation. Frozen, it waits for that."""
    job = site.submit("run", *LONG, "machine.hang_seconds=600.0", "machine.grace_seconds=20.0", options=["--time", "2"])
    job.await_event("step.done", 5)
    job.freeze()  # SLURM wakes what it signals
    assert int(job.await_end()["Restarts"]) >= 1
    assert site.place.fingerprint("run") == uninterrupted
    assert set(tokens_lost(job).values()) == {0}


def test_a_rank_that_crashes_or_freezes_is_replaced_in_the_same_job(site: Site, uninterrupted: str) -> None:
    """SIGKILL of a rank on the second machine, then SIGSTOP of one on the first: the journal names both; both go on."""
    job = site.submit("run", *LONG, "machine.hang_seconds=4.0", options=["--nodes", "2"])
    job.await_steps(5)
    first, second = job.nodes
    (rank,) = site.ranks(second)
    rank.kill()
    job.await_steps(5, attempt=2)
    (rank,) = site.ranks(first)
    rank.send_signal(signal.SIGSTOP)
    assert job.await_end()["Restarts"] == "0"
    crashed, frozen, *_, last = site.place.history("run").attempts
    assert crashed.end
    assert (crashed.end.host, crashed.end.reason) == (second, "rank 1 was killed by SIGKILL")
    assert frozen.end
    assert f"rank 0 on {first} is stuck in phase" in frozen.end.reason
    assert frozen.end.host == first
    assert last.outcome == "done"
    assert {len(launch["machines"]) for launch in job.named("job.launched")} == {2}
    assert site.place.fingerprint("run") == uninterrupted


def test_a_slurmctld_that_is_away_ends_nothing(site: Site, uninterrupted: str) -> None:
    """It stops while the run trains, which goes on to its end; the job waits until it can report that."""
    job = site.submit("run", *LONG, "machine.hang_seconds=600.0")
    job.await_event("step.done", 5)
    ranks = job.freeze()
    site.cluster.stop_controller()
    for rank in ranks:
        rank.send_signal(signal.SIGCONT)
    job.await_event("attempt.ended")
    job.await_event("job.slurm_away")
    site.cluster.start_controller()
    assert job.await_end()["Restarts"] == "0"
    assert [attempt.outcome for attempt in site.place.history("run").attempts] == ["done"]
    assert site.place.fingerprint("run") == uninterrupted


def test_a_machine_that_is_cut_off_is_left(site: Site, uninterrupted: str) -> None:
    """Not the batch host: its rank is alive and hears nothing more; the others go on, and what it does counts not."""
    job = site.submit("run", *LONG, "machine.hang_seconds=5.0", options=["--nodes", "1:2"])
    job.await_event("step.done", 5)
    victim = job.nodes[1]
    ranks = site.ranks(victim)
    site.cluster.cut_network(victim)
    job.await_end()
    assert victim not in job.named("job.launched")[-1]["machines"]
    assert site.place.fingerprint("run") == uninterrupted
    for rank in ranks:
        rank.wait(60)  # it does not outlive its launch for ever
    site.cluster.join_network(victim)


def test_a_machine_whose_daemon_died_is_left_with_nothing_lost(site: Site, uninterrupted: str) -> None:
    """Only slurmd is killed, the ranks live: they save when SLURM gives the machine up, and go on without it."""
    job = site.submit("run", *LONG, "machine.hang_seconds=600.0", options=["--nodes", "1:2"])
    job.await_event("step.done", 5)
    victim = job.nodes[1]
    ranks = site.ranks(victim)
    for rank in ranks:
        rank.send_signal(signal.SIGSTOP)  # else the run would be done before SLURM notices
    site.cluster.kill_slurmd(victim)
    site.cluster.await_node(victim, "DOWN")
    for rank in ranks:
        rank.send_signal(signal.SIGCONT)
    job.await_end()
    assert [attempt.outcome for attempt in site.place.history("run").attempts] == ["preempted", "done"]
    assert job.named("job.launched")[-1]["machines"] == [
        name for name in job.named("job.launched")[0]["machines"] if name != victim
    ]
    assert site.place.fingerprint("run") == uninterrupted
    assert set(tokens_lost(job).values()) == {0}


@pytest.mark.parametrize("which", [0, 1], ids=["batch host", "other machine"])
def test_a_power_cut_ends_no_run(site: Site, uninterrupted: str, which: int) -> None:
    """Without the batch host the job is queued anew, by the machine that is left; without another one it goes on."""
    job = site.submit("run", *LONG, "machine.hang_seconds=5.0", options=["--nodes", "2"])
    job.await_event("step.done", 5)
    victim = job.nodes[which]
    site.cluster.power_cut(victim)
    job.await_end()
    assert victim not in job.named("job.launched")[-1]["machines"]
    assert site.place.fingerprint("run") == uninterrupted


def test_two_incarnations_at_once_are_fenced(site: Site, uninterrupted: str) -> None:
    """A machine that is cut off trains on, with the store in reach, while SLURM begins the job elsewhere."""
    job = site.submit("run", *LONG, "checkpoint.every_tokens=1024", "machine.hang_seconds=600.0")
    job.await_event("step.done", 5)
    (victim,) = job.nodes
    (rank,) = site.ranks(victim)
    rank.send_signal(signal.SIGSTOP)  # long enough for SLURM to give the machine up
    site.cluster.cut_network(victim)
    job.await_that(lambda: len(job.named("attempt.claimed")) > 1, "second incarnation")
    rank.send_signal(signal.SIGCONT)
    job.await_end()
    rank.wait(60)
    attempts = site.place.history("run").attempts
    assert [attempt.outcome for attempt in attempts] == ["open", "done"]
    assert attempts[0].commits[-1].seq < attempts[1].number
    assert site.place.fingerprint("run") == uninterrupted
    site.cluster.join_network(victim)
