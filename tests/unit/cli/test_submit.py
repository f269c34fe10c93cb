"""Submitting and following arrays from the command line, without SLURM."""

import json
import re
import time
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, running, step, trained
from tests.unit.launch.answers import PARTITION

from headway.objectstore.folder import FolderStore
from headway.runs import submissions
from headway.runs.submissions import Member, Submission, SubmittedJob
from headway.telemetry import Trace, spans, traces

TEXT = """
name: slm
model: {layers: 1, width: 16, heads: 2, kv_heads: 1, ffn_width: 32}
train: {tokens: 8192, batch_tokens: 4096, micro_batch_tokens: 2048}
"""


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No SLURM program is on PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A recipe whose data is not built."""
    (tmp_path / "slm.yaml").write_text(TEXT)
    return str(tmp_path / "slm.yaml")


def kept(store: FolderStore, *runs: str, name: str = "slm", cancelled: bool = False) -> None:
    """Stores a submission of runs that sbatch accepted as job 7."""
    submissions.save(
        store,
        Submission(
            name=name, cluster="c", user="u", host="h", folder="/", time=0, recipe=TEXT, array=runs != (name,),
            nodes_min=1, nodes_max=1, members=[Member(run=run, overrides=[]) for run in runs], ranks=1, trace="",
            store=store.url, sbatch="", logs="", jobs=[SubmittedJob(job="7", time=0, cancelled=cancelled)],
        ),
    )  # fmt: skip


def test_a_dry_run_prints_what_sbatch_would_get(headway: Headway, store: FolderStore, recipe: str) -> None:
    """A dry run needs no SLURM and leaves the store unchanged."""
    answer = headway(
        "submit", recipe, "seed=3", "--array", "train.lanes=1,2", "--dry-run", "--time", "90", "--qos", "q"
    )
    assert answer.code == 0
    assert answer.out.startswith("#!/bin/bash\n")
    assert {"#SBATCH --array=0-1%2", "#SBATCH --time=90", "#SBATCH --qos=q"} <= set(answer.out.splitlines())
    assert answer.out.splitlines()[-1].endswith(f"-m headway.cli job --submission slm --store {store.url}")
    assert list(store.list("")) == []
    assert not Path("slurm").exists()
    document = headway("submit", recipe, "--dry-run", "--name", "other", "--json").document
    assert (document["submission"], document["job"], document["runs"]) == ("other", None, ["other"])
    assert document["sbatch"].splitlines()[0] == "#!/bin/bash"


@pytest.mark.usefixtures("store")
def test_data_that_nobody_built_is_warned_of(headway: Headway, recipe: str) -> None:
    """Missing data causes one warning for all members; the nodes may have the data, so it is not an error."""
    answer = headway("submit", recipe, "--array", "seed=1,2", "--dry-run", "--quiet")
    assert (answer.code, answer.err.count("there is no data in")) == (0, 1)
    assert "headway data build" in answer.err
    Path("data/slm").mkdir(parents=True)
    Path("data/slm/manifest.json").touch()
    assert headway("submit", recipe, "--dry-run").err == ""


def test_submitting_needs_slurm(headway: Headway, store: FolderStore, recipe: str) -> None:
    """Without SLURM the command exits with 2 and leaves nothing in the store."""
    answer = headway("submit", recipe, "--array", "seed=1,2")
    assert answer.code == 2
    assert "this machine has no SLURM" in answer.err
    assert [key for key in store.list("") if key.startswith("submissions/")] == []


def test_a_submission_is_where_the_trace_begins(
    headway: Headway, store: FolderStore, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spans of the jobs descend from the submission's span, and that from the caller's; a dry run has no span."""
    file, parent = tmp_path / "spans.jsonl", Trace.new()
    monkeypatch.setenv(spans.FILE_VARIABLE, str(file))
    monkeypatch.delenv(traces.TRACE_VARIABLE, raising=False)
    assert headway("submit", recipe, "--dry-run").code == 0
    assert not file.exists()
    partition = PARTITION.replace("Default=NO", "Default=YES")
    scripts = {
        "sbatch": 'echo "Submitted batch job 7"',
        "scontrol": f'case "$*" in *config) echo "ClusterName = c";; *) echo "{partition}";; esac',
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    assert headway("submit", recipe).code == 0
    (tmp_path / "sbatch").unlink()
    monkeypatch.setenv(traces.TRACE_VARIABLE, str(parent))
    assert headway("submit", recipe, "--name", "other").code == 2
    first, second = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    assert (first["name"], first["parent"], first["attributes"]["headway.job"]) == ("launch.submit", None, "7")
    kept = submissions.get(store, "slm")
    assert kept.trace == str(Trace(first["trace_id"], first["span_id"]))
    assert f"export TRACEPARENT={kept.trace}\n" in kept.sbatch
    assert (second["trace_id"], second["parent"], second["status"]) == (parent.trace_id, parent.span_id, "error")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["train.lane=3"], "did you mean lanes?"),
        (["--array", "seed=1,x"], "member 1 of the array, seed=x"),
        (["--nproc", "2"], "run slm: 2 ranks (1 nodes of 2) cannot share a batch of 1 lanes"),
        (["--nodes", "2"], "2 ranks (2 nodes of 1) cannot share a batch of 1 lanes"),
        (["--name", "a b"], "--name a b: use letters"),
        (["--time", "soon"], "--time soon"),
    ],
)
@pytest.mark.usefixtures("store")
def test_what_is_wrong_is_said_before_slurm_is_asked(
    headway: Headway, recipe: str, words: list[str], complaint: str
) -> None:
    """Recipe, members and resources are checked first."""
    answer = headway("submit", recipe, *words)
    assert (answer.code, answer.out) == (2, "")
    assert complaint in answer.err


def test_an_array_is_counted_and_listed(headway: Headway, store: FolderStore) -> None:
    """The first line counts the states; each member has a row, in the array's order."""
    trained(Story(store, "slm.b"))
    running(Story(store, "slm.a"))
    kept(store, "slm.b", "slm.a", "slm.c")
    answer = headway("status", "slm")
    lines = answer.out.splitlines()
    assert lines[0] == "slm: 3 runs: 1 done, 1 running, 1 submitted; job 7 on c"
    assert [line.split()[0] for line in lines[2:]] == ["run", "slm.b", "slm.a", "slm.c"]
    assert re.search(r"slm\.b +done +- +10,000 +100\.0% +1\.500 +node-7 +1 +\d+\.\d%", lines[3])
    assert re.search(r"slm\.c +submitted +- +-", lines[5])
    assert "shown without SLURM's data: " in answer.err
    assert headway("status", "slm", "--quiet").err == ""
    document = headway("status", "slm", "--json").document
    assert document["counts"] == {"done": 1, "running": 1, "submitted": 1}
    assert [row["run"] for row in document["members"]] == ["slm.b", "slm.a", "slm.c"]
    done = document["members"][0]
    assert (done["tokens"], done["share"], done["preemptions"], done["failures"], done["slurm"]) == (
        10000, 1.0, 1, 3, None,
    )  # fmt: skip


def test_a_submitted_run_has_a_status_before_it_begins(headway: Headway, store: FolderStore) -> None:
    """A single run and a run of an array have a status; once it has started, SLURM continues it."""
    kept(store, "one", name="one")
    kept(store, "slm.a", "slm.b")
    for name in ("one", "slm.a"):
        document = headway("status", name, "--json").document
        assert (document["run"], document["state"], document["tokens"], document["attempts"]) == (
            name, "submitted", 0, [],
        )  # fmt: skip
    assert headway("status", "one").out.split() == ["run", "one", "state", "submitted"]
    story = Story(store, "one")
    story.claim(100)
    story.end(110, "preempted", 0)
    document = headway("status", "one", "--json").document
    assert (document["state"], document["continue"]) == ("preempted", f"headway requeue one --store {store.url}")


def test_runs_lists_what_has_not_begun(headway: Headway, store: FolderStore) -> None:
    """An array is one line on a terminal; cancelled submissions are left out."""
    running(Story(store, "slm.a"))
    kept(store, "slm.a", "slm.b", "slm.c")
    kept(store, "one", name="one")
    kept(store, "off", name="off", cancelled=True)
    assert [line.split()[:2] for line in headway("runs").out.splitlines()[1:]] == [
        ["slm.a", "running"],
        ["one", "submitted"],
        ["slm", "(2"],
    ]
    rows = headway("runs", "--json").document["runs"]
    assert [(row["run"], row["state"]) for row in rows] == [
        ("slm.a", "running"), ("one", "submitted"), ("slm.b", "submitted"), ("slm.c", "submitted"),
    ]  # fmt: skip


def test_logs_of_an_array_are_told_in_order_of_time(headway: Headway, store: FolderStore) -> None:
    """The events of all runs are merged, each with its run's name; JSON lines are printed as stored."""
    for run, moments in {"slm.a": (10, 40), "slm.long": (20, 30)}.items():
        story = Story(store, run)
        story.claim(100)
        story.say(*(step(1000 * moment, at=moment) for moment in moments))
    kept(store, "slm.a", "slm.long", "slm.never")
    lines = headway("logs", "slm").out.splitlines()
    assert [line.split()[0] for line in lines] == ["slm.a", "slm.long", "slm.long", "slm.a"]
    assert len({line.index("step.done") for line in lines}) == 1
    events = [json.loads(line) for line in headway("logs", "slm", "--json").out.splitlines()]
    assert [event["tokens"] for event in events] == [10_000, 20_000, 30_000, 40_000]


def test_following_an_array_ends_with_its_last_run(headway: Headway, store: FolderStore) -> None:
    """All runs are over: the stored events are printed, and then the states."""
    trained(Story(store, "slm.a"))
    story = Story(store, "slm.b")
    story.claim(time.time() - 50)
    story.say(step(1000))
    story.end(time.time(), "failed", 0)
    kept(store, "slm.a", "slm.b")
    answer = headway("logs", "slm", "-f")
    assert answer.code == 0
    assert {line.split()[0] for line in answer.out.splitlines()} == {"slm.a", "slm.b"}
    assert "headway: slm: 1 done, 1 failed" in answer.err


@pytest.mark.parametrize("command", ["cancel", "requeue"])
def test_steering_needs_something_that_slurm_knows(headway: Headway, store: FolderStore, command: str) -> None:
    """An unknown name and a run that was trained without SLURM have different errors."""
    kept(store, "slm.a")
    trained(Story(store, "mine"))
    nobody, mine, array = (headway(command, name) for name in ("nobody", "mine", "slm"))
    assert (nobody.code, mine.code, array.code) == (2, 2, 2)
    assert "no run nobody in" in nobody.err
    assert "there are: mine; submissions: slm" in nobody.err
    assert "run mine was not started by SLURM; process " in mine.err
    assert " trained it last" in mine.err
    assert "this machine has no SLURM" in array.err


def test_an_array_does_not_go_back(headway: Headway, store: FolderStore, recipe: str) -> None:
    """Its runs have different checkpoints; the command is refused before anything is asked of SLURM."""
    answer = headway("submit", recipe, "--array", "seed=1,2", "--from-tokens", "0")
    assert (answer.code, [*store.list("")]) == (2, [])
    assert "--from-tokens is for one run" in answer.err
