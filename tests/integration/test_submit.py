"""Submitting, following and steering on a real SLURM cluster; what jobs do inside is not looked at here, they sleep."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headway.cli import main
from headway.cli.logs import FollowedRuns
from headway.launch import cluster as slurm
from headway.launch.resolve import resolve
from headway.objectstore.folder import FolderStore
from headway.runs import Holder, submissions
from tests.engines.slurm.cluster import Cluster
from tests.unit.cli.story import Story, step

pytestmark = pytest.mark.slow

DEADLINE = 60.0
"""Seconds that anything here may take before the test fails [s]: a bound for hangs, not a measure of speed."""
TEXT = """
name: slm
model: {layers: 1, width: 16, heads: 2, kv_heads: 1, ffn_width: 32}
train: {tokens: 8192, batch_tokens: 4096, micro_batch_tokens: 512, lanes: 8}
data: {block_tokens: 512}
"""
NODES, CPUS, GPUS = 2, 8, 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that this process is on, too."""
    folder = tmp_path_factory.mktemp("slurm")
    with Cluster(folder, NODES, cpus=CPUS, gpus=GPUS) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        patch.setenv("HEADWAY_PYTHON", "sleep 300 #")
        yield cluster


@pytest.fixture
def store(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FolderStore]:
    """A store and a recipe in the present folder; afterwards the cluster is free again."""
    store = FolderStore(tmp_path / "my store")
    monkeypatch.setenv("HEADWAY_STORE", store.url)
    monkeypatch.chdir(tmp_path)
    Path("slm.yaml").write_text(TEXT)
    yield store
    subprocess.run(["scancel", "--full", "--signal=KILL", f"--user={os.getuid()}"], check=False, capture_output=True)
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
    until(lambda: not cluster.client("squeue", "--noheader"))


def until(holds: Callable[[], Any]) -> Any:
    """Wait until something holds; returns its value."""
    deadline = time.monotonic() + DEADLINE
    while not (value := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


@dataclass(frozen=True)
class Answer:
    """The output of a command."""

    stdout: str
    stderr: str


def headway(*words: str, code: int = 0) -> Answer:
    """Run a command to its end, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as leaving:
        main(words)
    assert int(leaving.value.code or 0) == code, err.getvalue()
    return Answer(out.getvalue(), err.getvalue())


def document(*words: str) -> Any:
    """The JSON document that a command prints."""
    return json.loads(headway(*words, "--json").stdout)


def state(name: str) -> str:
    """The state of a run."""
    return str(document("status", name)["state"])


def running(job: str) -> slurm.SlurmJob:
    """A job, once it runs."""
    running: slurm.SlurmJob = until(lambda: (now := slurm.job(job)) and now.state == "RUNNING" and now)
    return running


def test_a_thousand_runs_are_one_array(store: FolderStore) -> None:
    """Submitted at once, counted, and cancelled at once."""
    seeds = ",".join(map(str, range(1000)))
    submitted = document("submit", "slm.yaml", "--array", f"seed={seeds}", "--sbatch", "hold", "--parallel", "50")
    assert len(submitted["runs"]) == 1000
    (job,) = {job.array_id for job in slurm.jobs([submitted["job"]])}
    assert job == submitted["job"]
    assert slurm.jobs([f"{job}_7"])[0].fields["ArrayTaskThrottle"] == "50"
    status = document("status", "slm")
    assert status["counts"] == {"pending": 1000}
    assert status["members"][999]["run"] == "slm.seed-999"
    assert status["members"][999]["slurm"]["job"] == f"{job}_999"
    assert status["members"][999]["slurm"]["reason"] == "JobHeldUser"
    assert len(document("cancel", "slm")["cancelled"]) == 1000
    assert until(lambda: document("status", "slm")["counts"]) == {"cancelled": 1000}
    assert document("runs")["runs"] == []
    kept = submissions.get(store, "slm")
    assert kept.cluster == "headway"
    assert Path("slurm", f"{job}_submission.sh").read_text() == kept.sbatch
    assert sorted(path.name for path in Path("slurm").iterdir()) == [f"{job}_submission.sh"]


@pytest.mark.usefixtures("store")
def test_a_run_waits_starts_is_requeued_cancelled_and_submitted_again() -> None:
    """One word at each station."""
    job = document("submit", "slm.yaml", "--nodes", "1:2")["job"]
    assert running(job).nodes in (["node1"], ["node1", "node2"])
    status = document("status", "slm")
    assert (status["state"], status["slurm"]["job"], status["tokens"]) == ("starting", job, 0)
    assert document("requeue", "slm")["stopped"] == ["slm"]
    until(lambda: state("slm") == "pending")
    assert document("requeue", "slm")["waiting"] == ["slm"]
    assert document("cancel", "slm")["cancelled"] == [job]
    until(lambda: state("slm") == "cancelled")
    assert document("status", "slm")["continue"].startswith("headway requeue slm")
    assert "nothing to cancel" in headway("cancel", "slm", code=2).stderr
    again = document("requeue", "slm")
    assert (again["again"], again["job"] != job) == (["slm"], True)
    assert running(again["job"]).restarts == 0
    assert document("status", "slm")["slurm"]["job"] == again["job"]


def test_runs_of_an_array_are_steered_one_by_one(store: FolderStore) -> None:
    """The others neither stop nor start again, although one of them has the raw id of the whole array."""
    job = document("submit", "slm.yaml", "--array", "seed=1,2,3")["job"]
    elements = [running(f"{job}_{index}") for index in range(3)]
    assert elements[2].raw_id == job
    assert document("requeue", "slm.seed-3")["stopped"] == ["slm.seed-3"]
    assert document("cancel", "slm.seed-1")["cancelled"] == [f"{job}_0"]
    until(lambda: state("slm.seed-1") == "cancelled" and state("slm.seed-3") == "pending")
    assert slurm.jobs([f"{job}_1"])[0].restarts == 0
    assert slurm.jobs([f"{job}_1"])[0].state == "RUNNING"
    again = document("requeue", "slm.seed-1")
    assert again["again"] == ["slm.seed-1"]
    assert running(f"{again['job']}_0").array_index == 0
    assert submissions.get(store, "slm").job_of(0) == f"{again['job']}_0"
    assert submissions.get(store, "slm").job_of(1) == f"{job}_1"
    rows = document("status", "slm")["members"]
    assert [row["slurm"]["job"] for row in rows] == [f"{again['job']}_0", f"{job}_1", f"{job}_2"]
    assert rows[1]["node"] in {"node1", "node2"}


def test_a_whole_array_is_requeued_but_for_what_is_done(store: FolderStore) -> None:
    """What runs is stopped and queued anew, what is over is submitted again in one array, what is done is left."""
    job = document("submit", "slm.yaml", "--array", "seed=1,2,3,4")["job"]
    running(f"{job}_3")
    headway("cancel", "slm.seed-2")
    headway("cancel", "slm.seed-3")
    until(lambda: state("slm.seed-2") == state("slm.seed-3") == "cancelled")
    story = Story(store, "slm.seed-1")
    story.claim(100)
    story.end(110, "done", 10_000)
    requeued = document("requeue", "slm")
    assert (requeued["done"], requeued["stopped"]) == (["slm.seed-1"], ["slm.seed-4"])
    assert requeued["again"] == ["slm.seed-2", "slm.seed-3"]
    assert {job.array_index for job in slurm.jobs([requeued["job"]])} == {1, 2}


def test_a_job_that_was_submitted_by_hand_is_steered_too(store: FolderStore, cluster: Cluster) -> None:
    """It is found by the newest claim of its run, also where its raw id is that of a whole array."""
    array = cluster.submit("exec sleep 300", "--array=0-1")
    last = running(f"{array}_1")
    assert last.raw_id == array

    class ByHand(Story):
        @property
        def holder(self) -> Holder:
            return Holder(host="node1", pid=1, started=1, launch="x", job=last.raw_id)

    ByHand(store, "mine").claim(time.time())
    assert document("requeue", "mine")["stopped"] == ["mine"]
    until(lambda: slurm.jobs([f"{array}_1"])[0].is_pending)
    assert slurm.jobs([f"{array}_0"])[0].restarts == 0
    assert document("cancel", "mine")["cancelled"] == [f"{array}_1"]
    assert slurm.jobs([f"{array}_0"])[0].state == "RUNNING"
    until(lambda: not any(job.is_pending for job in slurm.jobs([array])))
    assert "submit it again" in headway("requeue", "mine", code=2).stderr


def test_what_is_submitted_already_is_not_submitted_twice(store: FolderStore) -> None:
    """Whoever has it in the queue is named; when that is over, the same command goes on."""
    first = document("submit", "slm.yaml", "--array", "seed=1,2")["job"]
    for words in (["--array", "seed=1,2"], ["--array", "seed=3"], ["--name", "slm.seed-1"]):
        complaint = headway("submit", "slm.yaml", *words, code=2).stderr
        assert f"slm is submitted already: job {first}_" in complaint
        assert "headway cancel slm" in complaint
    headway("submit", "slm.yaml", "--array", "seed=1,2", "--name", "other")
    headway("cancel", "slm")
    until(lambda: set(document("status", "slm")["counts"]) == {"cancelled"})
    second = document("submit", "slm.yaml", "--array", "seed=1,2")["job"]
    assert submissions.get(store, "slm").job == second != first


BAD = [
    (["--partition", "nix"], "no partition nix; there are: main (2 nodes), grace (2 nodes), high (2 nodes)"),
    (["--nodes", "3"], "the job needs at least 3 nodes, and partition main allows 2"),
    (
        ["--nproc", "4", "train.threads=4"],
        "the job needs 16 CPUs per node (ranks times threads), and the largest node of ",
    ),
    (
        ["--gpus", "4"],
        "1 nodes with 4 CPUs and 4 GPUs each. Partition main has 2 nodes; 2 of them have GPUs, 2 at most",
    ),
    (["--gpus", "a100:1"], "not available"),
    (["--sbatch", "mem=99G"], "at most 8 CPUs and 8,000 MiB of memory"),
    (["--constraint", "fast"], "Choose with --constraint"),
    (["--exclude", "nobody"], "Correct --exclude"),
    (["--sbatch", "mem=x"], "sbatch: "),
    (["--sbatch", "nonsense=1"], "unrecognized option '--nonsense=1'"),
    (["--array", f"seed={','.join(map(str, range(1002)))}"], "An array has at most 1001 runs here"),
]


@pytest.mark.parametrize(("words", "complaint"), BAD, ids=[" ".join(words)[:30] for words, _ in BAD])
def test_what_this_cluster_cannot_run_is_refused(store: FolderStore, words: list[str], complaint: str) -> None:
    """Said at once, with what there is instead; nothing of it stays, and what was there before does."""
    earlier = [submission.model_dump() for submission in submissions.all_submissions(store)]
    refused = headway("submit", "slm.yaml", *words, code=2)
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr
    assert [submission.model_dump() for submission in submissions.all_submissions(store)] == earlier == []
    assert list(Path("slurm").glob("*")) == []


def test_a_refusal_leaves_an_earlier_submission_as_it_was(store: FolderStore) -> None:
    """Its job is still found afterwards."""
    headway("submit", "slm.yaml")
    headway("cancel", "slm")
    until(lambda: state("slm") == "cancelled")
    before = submissions.get(store, "slm")
    headway("submit", "slm.yaml", "--constraint", "fast", code=2)
    assert submissions.get(store, "slm") == before


@pytest.mark.usefixtures("store")
def test_a_run_cannot_share_its_name_with_an_array(store: FolderStore) -> None:
    """One name would mean two things."""
    Story(store, "slm").claim(100)
    assert "there is a run slm already" in headway("submit", "slm.yaml", "--array", "seed=1", code=2).stderr
    headway("submit", "slm.yaml", "--array", "seed=1", "--name", "sweep", "--sbatch", "hold")


def test_following_waits_for_the_queue(store: FolderStore) -> None:
    """`logs -f` of a run that has not begun goes on until it has ended, and nothing more is queued."""
    headway("submit", "slm.yaml", "--sbatch", "hold")
    assert not FollowedRuns(resolve(store, "slm")).is_over()
    command = [sys.executable, "-m", "headway.cli", "logs", "slm", "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        story = Story(store, "slm")
        story.claim(time.time())
        story.say(step(4096, at=time.time()))
        assert following.stdout
        assert "step.done" in following.stdout.readline()
        story.end(time.time(), "done", 8192)
        story.say({"event": "attempt.ended"})
        assert not FollowedRuns(resolve(store, "slm")).is_over()
        headway("cancel", "slm")
        assert FollowedRuns(resolve(store, "slm")).is_over()
        out, err = following.communicate(timeout=DEADLINE)
    assert "attempt.ended" in out
    assert "run slm is done" in err


@pytest.mark.usefixtures("store")
def test_slurm_is_asked_in_few_words(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of hosts and long lists of indices come whole; a job can be changed; what nobody knows is nothing."""
    monkeypatch.setenv("SLURM_BITSTR_LEN", "40")  # as people have it to keep squeue's lines short
    assert slurm.expand_node_list("node[1-2],node1") == ["node1", "node2", "node1"]
    assert {node.gpus for node in slurm.nodes()} == {GPUS}
    assert next((each.name, each.default, each.nodes) for each in slurm.partitions()) == ("main", True, NODES)
    odd = ",".join(str(index) for index in range(1, 400, 2))
    job = cluster.submit("true", f"--array={odd}", "--hold")
    assert [each.array_index for each in slurm.jobs([job])] == list(range(1, 400, 2))
    assert [each.id for each in slurm.jobs([f"{job}_3", f"{job}_5"])] == [f"{job}_3", f"{job}_5"]
    assert slurm.jobs(["1", "1_1", f"{job}_2"]) == []
    slurm.update(job, TimeLimit="7")
    assert slurm.jobs([job])[0].fields["TimeLimit"] == "00:07:00"
    submitted = slurm.jobs([job])[0].submit_time
    assert submitted
    assert abs(time.time() - submitted) < DEADLINE


FILES = Path(__file__).parents[2] / "jobs" / "slurm"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("pretrain", [], ["-m headway.cli job slm.yaml seed=3 --run a b"]),
        (
            "array",
            ["--array=2,4", "--job-name=sweep"],
            [f"-m headway.cli job slm.yaml seed=3 --run a b seed={n} --run sweep.seed-{n}" for n in (2, 4)],
        ),
        ("export", [], ["-m headway.cli export slm.yaml seed=3 --run a b"]),
    ],
)
def test_the_batch_files_work_without_our_command(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, name: str, options: list[str], expected: list[str]
) -> None:
    """SLURM takes them, and what is asked of them reaches Headway; those that come back do it as submit's do."""
    signals = "" if name == "export" else "for signal in TERM USR1 USR2; do kill -$signal $$; done\n"
    Path("python").write_text(f'#!/bin/sh\n{signals}echo "$@"\n')
    Path("python").chmod(0o755)
    monkeypatch.setenv("HEADWAY_PYTHON", str(Path("python").absolute()))
    file = FILES / f"{name}.sbatch"
    words = ["slm.yaml", "seed=3", "--run", "a b"]
    job = cluster.client("sbatch", "--parsable", "--output=out-%j", *options, str(file), *words)
    until(lambda: all(each.state == "COMPLETED" for each in slurm.jobs([job])))
    outputs = sorted(Path(each.fields["StdOut"]).read_text().strip() for each in slurm.jobs([job]))
    assert outputs == expected
    if name != "export":
        composed = set(headway("submit", "slm.yaml", "--dry-run").stdout.splitlines())
        common = {line for line in composed if line.startswith(("trap", "#SBATCH")) and "/" not in line}
        assert common - set(file.read_text().splitlines()) == {"#SBATCH --cpus-per-task=1", "#SBATCH --job-name=slm"}
