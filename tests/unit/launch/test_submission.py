"""What is handed to sbatch, and what the store keeps of it."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from tests.memory import MemoryStore
from tests.unit.launch.answers import PARTITION

from headway.errors import UsageError
from headway.launch.resources import resources
from headway.launch.submission import compose, submit
from headway.launch.sweep import sweep_members
from headway.objectstore import Store
from headway.objectstore.folder import FolderStore
from headway.recipe import RecipeDocument
from headway.runs import keys, submissions
from headway.runs.submissions import Submission, SubmittedJob

TEXT = """
name: slm
model: {layers: 1, width: 16, heads: 2, kv_heads: 1, ffn_width: 32}
train: {tokens: 8192, batch_tokens: 4096, micro_batch_tokens: 2048}
"""


DOCUMENT = RecipeDocument(TEXT)
ASKED = resources(sweep_members(DOCUMENT, [], []))


def composed(*arrays: str, logs: Path = Path("/logs"), store: Store | None = None) -> Submission:
    """What would be submitted."""
    wanted = sweep_members(DOCUMENT, [], arrays)
    return compose(store or MemoryStore(), "slm", DOCUMENT, wanted, ASKED, array=bool(arrays), logs=logs)


def directives(text: str) -> dict[str, str]:
    """The `#SBATCH` lines."""
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE))


def test_a_job_is_one_command_that_hears_no_signals() -> None:
    """The shell ignores what is for the ranks, and becomes `headway job`; no srun, no pickles, no wckey."""
    text = composed().sbatch
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines[0] == "trap '' TERM USR1 USR2"
    assert shlex.split(lines[-1]) == [
        *("exec", sys.executable, "-m", "headway.cli"),
        *("job", "--submission", "slm", "--store", "memory://"),
    ]
    assert "srun" not in text
    found = directives(text)
    assert found["output"] == "/logs/%x-%j.out"
    assert {"requeue", "no-kill"} <= found.keys()
    assert "ntasks-per-node" not in found, "with it SLURM would give the fewest nodes that it may, not the most"
    assert found.keys().isdisjoint({"array", "wckey", "error", "time", "partition"})
    assert (found["signal"], found["open-mode"]) == ("TERM@120", "append")


def test_an_array_has_an_element_for_each_member() -> None:
    """In their order, from 0; the recipe is kept as it was written, with each member's overrides."""
    wanted = composed("seed=4,5,6")
    assert directives(wanted.sbatch)["array"] == "0-2%3"
    assert directives(wanted.sbatch)["output"] == "/logs/%x-%A_%a.out"
    assert wanted.recipe == TEXT
    assert [member.overrides for member in wanted.members] == [["seed=4"], ["seed=5"], ["seed=6"]]
    assert [member.run for member in wanted.members] == ["slm.seed-4", "slm.seed-5", "slm.seed-6"]
    assert (wanted.array, wanted.sent, wanted.job, wanted.job_of(1)) == (True, [], None, None)


def test_an_array_of_one_is_an_array() -> None:
    """So that `--array` with one value means what it says."""
    assert directives(composed("seed=4").sbatch)["array"] == "0-0%1"


def test_all_of_a_submission_belongs_to_one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """To that of whoever submits, if there is one; jobs find it in their environment."""
    monkeypatch.delenv("TRACEPARENT", raising=False)
    wanted = composed()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", wanted.trace)
    assert f"export TRACEPARENT={wanted.trace}\n" in wanted.sbatch
    assert composed().trace != wanted.trace
    monkeypatch.setenv("TRACEPARENT", wanted.trace)
    assert composed().trace == wanted.trace
    monkeypatch.setenv("TRACEPARENT", "rubbish; rm -r")
    assert composed().trace not in {wanted.trace, "rubbish; rm -r"}


def test_python_may_be_another_one_on_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: the words of HEADWAY_PYTHON stand in the batch file as they are."""
    monkeypatch.setenv("HEADWAY_PYTHON", "apptainer exec image.sif python")
    assert "\nexec apptainer exec image.sif python -m headway.cli job " in composed().sbatch


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """SLURM's programs as far as they are asked; sbatch runs the script `sbatch.sh`, which a test writes."""
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
    """The submission is in the store before sbatch is asked, and has the job's id afterwards."""
    store = FolderStore(tmp_path / "store")
    kept = tmp_path / "store" / keys.submission("slm")
    (programs / "sbatch.sh").write_text(
        f'cp {kept} {tmp_path}/seen; cp "$1" {tmp_path}/given; echo "Submitted batch job 7"'
    )
    done = submit(store, composed(store=store, logs=tmp_path / "logs"), ASKED)
    seen = Submission.model_validate_json((tmp_path / "seen").read_bytes())
    assert (seen.cluster, seen.sent) == ("here", [])
    assert (tmp_path / "given").read_text() == done.sbatch
    assert [sent.job for sent in done.sent] == ["7"]
    assert submissions.get(store, "slm") == done
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["7_submission.sh"]


def test_a_refusal_leaves_everything_as_it_was(programs: Path, tmp_path: Path) -> None:
    """Nothing, or the submission that was there; no files either."""
    store = FolderStore(tmp_path / "store")
    (programs / "sbatch.sh").write_text("echo 'sbatch: error: Invalid qos specification' >&2; exit 1")
    with pytest.raises(UsageError, match=r"sbatch: Invalid qos specification\. Choose with --qos"):
        submit(store, composed(store=store, logs=tmp_path / "logs"), ASKED)
    assert list(store.list("")) == []
    assert list((tmp_path / "logs").iterdir()) == []
    earlier = composed(store=store).model_copy(update={"sent": [SubmittedJob(job="3", time=0)], "name": "slm"})
    submissions.save(store, earlier)
    (programs / "scontrol").write_text(
        (programs / "scontrol").read_text().replace("*) exit 1", "*) echo 'Invalid job id specified' >&2; exit 1")
    )
    with pytest.raises(UsageError, match="Choose with --qos"):
        submit(store, composed(store=store, logs=tmp_path / "logs"), ASKED)
    assert submissions.get(store, "slm") == earlier
