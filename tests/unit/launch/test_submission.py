"""The batch file for sbatch, and the stored submission."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from tests.memory import MemoryStore
from tests.unit.cli.story import Story
from tests.unit.full_disk import short_files
from tests.unit.launch.answers import PARTITION

from headway.errors import UsageError
from headway.launch.resources import plan_resources
from headway.launch.submission import Batch, SubmissionRequest, submit
from headway.launch.sweep import sweep_members
from headway.objectstore import Store
from headway.objectstore.folder import FolderStore
from headway.recipe import RecipeDocument
from headway.runs import Run, keys, submissions
from headway.runs.submissions import Submission, SubmittedJob

TEXT = """
name: slm
model: {layers: 1, width: 16, heads: 2, kv_heads: 1, ffn_width: 32}
train: {tokens: 8192, batch_tokens: 4096, micro_batch_tokens: 2048}
"""


DOCUMENT = RecipeDocument(TEXT)
RESOURCES = plan_resources(sweep_members(DOCUMENT, [], []))


def composed(*arrays: str, logs: Path = Path("/logs"), store: Store | None = None) -> Submission:
    """A composed submission."""
    members = sweep_members(DOCUMENT, [], arrays)
    request = SubmissionRequest(
        store or MemoryStore(), "slm", DOCUMENT, members, RESOURCES, array=bool(arrays), logs=logs
    )
    return request.compose()


def directives(text: str) -> dict[str, str]:
    """The `#SBATCH` lines."""
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE))


def test_a_job_is_one_command_that_hears_no_signals() -> None:
    """The shell ignores the ranks' signals and becomes `headway job`; no srun, no pickles, no wckey."""
    text = composed().sbatch
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "trap '' TERM USR1 USR2"
    assert shlex.split(lines[-1]) == [
        *("exec", sys.executable, "-m", "headway.cli"),
        *("job", "--submission", "slm", "--store", "memory://"),
    ]
    assert "srun" not in text
    options = directives(text)
    assert options["output"] == "/logs/%x-%j.out"
    assert {"requeue", "no-kill"} <= options.keys()
    assert "ntasks-per-node" not in options, "with it SLURM would give the fewest nodes that it may, not the most"
    assert options.keys().isdisjoint({"array", "wckey", "error", "time", "partition"})
    assert (options["signal"], options["open-mode"]) == ("TERM@120", "append")


def test_an_array_has_an_element_for_each_member() -> None:
    """Elements count from 0; the recipe is stored as written, with each member's overrides."""
    submission = composed("seed=4,5,6")
    assert directives(submission.sbatch)["array"] == "0-2%3"
    assert directives(submission.sbatch)["output"] == "/logs/%x-%A_%a.out"
    assert submission.recipe == TEXT
    assert [member.overrides for member in submission.members] == [["seed=4"], ["seed=5"], ["seed=6"]]
    assert [member.run for member in submission.members] == ["slm.seed-4", "slm.seed-5", "slm.seed-6"]
    assert (submission.array, submission.jobs, submission.job, submission.job_of(1)) == (True, [], None, None)


def test_an_array_of_one_is_an_array() -> None:
    """`--array` with one value submits an array."""
    assert directives(composed("seed=4").sbatch)["array"] == "0-0%1"


def test_all_of_a_submission_belongs_to_one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace is the caller's, if there is one; jobs find it in their environment."""
    monkeypatch.delenv("TRACEPARENT", raising=False)
    submission = composed()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", submission.trace)
    assert f"export TRACEPARENT={submission.trace}\n" in submission.sbatch
    assert composed().trace != submission.trace
    monkeypatch.setenv("TRACEPARENT", submission.trace)
    assert composed().trace == submission.trace
    monkeypatch.setenv("TRACEPARENT", "rubbish; rm -r")
    assert composed().trace not in {submission.trace, "rubbish; rm -r"}


def test_python_may_be_another_one_on_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of HEADWAY_PYTHON are copied to the batch file, for example for a container."""
    monkeypatch.setenv("HEADWAY_PYTHON", "apptainer exec image.sif python")
    assert "\nexec apptainer exec image.sif python -m headway.cli job " in composed().sbatch


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Fake SLURM programs; sbatch runs the script `sbatch.sh` that a test writes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "sbatch": f". {folder}/sbatch.sh",
        "scontrol": 'case "$*" in *config) echo "ClusterName = here";; '
        f'*partition) echo "{PARTITION.replace("Default=NO", "Default=YES")}";; *) exit 1;; esac',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_job_that_begins_at_once_finds_what_it_is_to_do(programs: Path, tmp_path: Path) -> None:
    """The submission is stored before sbatch runs, and has the job's ID afterwards."""
    store = FolderStore(tmp_path / "store")
    kept = tmp_path / "store" / keys.submission("slm")
    (programs / "sbatch.sh").write_text(
        f'cp {kept} {tmp_path}/seen; cp "$1" {tmp_path}/given; echo "Submitted batch job 7"'
    )
    done = submit(store, composed(store=store, logs=tmp_path / "logs"), RESOURCES)
    seen = Submission.model_validate_json((tmp_path / "seen").read_bytes())
    assert (seen.cluster, seen.jobs) == ("here", [])
    assert (tmp_path / "given").read_text() == done.sbatch
    assert [sent.job for sent in done.jobs] == ["7"]
    assert submissions.get(store, "slm") == done
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["7_submission.sh"]


def test_a_refusal_leaves_everything_as_it_was(programs: Path, tmp_path: Path) -> None:
    """An earlier submission stays, and no files remain."""
    store = FolderStore(tmp_path / "store")
    (programs / "sbatch.sh").write_text("echo 'sbatch: error: Invalid qos specification' >&2; exit 1")
    with pytest.raises(UsageError, match=r"sbatch: Invalid qos specification\. Choose with --qos"):
        submit(store, composed(store=store, logs=tmp_path / "logs"), RESOURCES)
    assert list(store.list("")) == []
    assert list((tmp_path / "logs").iterdir()) == []
    earlier = composed(store=store).model_copy(update={"jobs": [SubmittedJob(job="3", time=0)], "name": "slm"})
    submissions.save(store, earlier)
    (programs / "scontrol").write_text(
        (programs / "scontrol").read_text().replace("*) exit 1", "*) echo 'Invalid job id specified' >&2; exit 1")
    )
    with pytest.raises(UsageError, match="Choose with --qos"):
        submit(store, composed(store=store, logs=tmp_path / "logs"), RESOURCES)
    assert submissions.get(store, "slm") == earlier


def test_a_submitted_run_goes_back_once_and_before_its_job_begins(programs: Path, tmp_path: Path) -> None:
    """The decision is in the journal when sbatch runs, and not in the submission: a requeue continues."""
    store = FolderStore(tmp_path / "store")
    story = Story(store, "slm")
    story.claim(100)
    story.commit(105, 2000)
    story.commit(107, 4000)
    story.end(109, "failed", 4000)
    (programs / "sbatch.sh").write_text(
        f'ls {store.root / keys.journal("slm")} > {tmp_path}/seen; echo "Submitted batch job 7"'
    )
    done = submit(store, composed(store=store, logs=tmp_path / "logs"), RESOURCES, 2000)
    assert len((tmp_path / "seen").read_text().split()) == 7
    assert Run(store, "slm").history().tokens == 2000
    assert "from-tokens" not in done.model_dump_json()


def test_a_run_without_such_a_checkpoint_is_not_submitted(programs: Path, tmp_path: Path) -> None:
    """Neither the journal nor the submissions have anything new."""
    store = FolderStore(tmp_path / "store")
    story = Story(store, "slm")
    story.claim(100)
    story.commit(105, 2000)
    story.end(109, "failed", 2000)
    entries = len(Run(store, "slm").journal.read())
    (programs / "sbatch.sh").write_text("echo Submitted batch job 7")
    with pytest.raises(UsageError, match="no checkpoint at 1000 tokens"):
        submit(store, composed(store=store, logs=tmp_path / "logs"), RESOURCES, 1000)
    assert submissions.find(store, "slm") is None
    assert len(Run(store, "slm").journal.read()) == entries


def test_a_full_disk_leaves_no_batch_file(tmp_path: Path) -> None:
    """Neither a part of it."""
    batch = Batch(tmp_path, text="#" * 2000)
    with pytest.raises(OSError, match="File too large"), short_files(1000):
        batch.send()
    assert list(tmp_path.iterdir()) == []
