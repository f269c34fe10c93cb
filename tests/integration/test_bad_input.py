"""Bad input: each case ends with a clear error, the right exit code, and nothing lost."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.training import Place


def headway(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "headway.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_unknown_key_is_refused_with_its_line(place: Place, tmp_path: Path) -> None:
    """File, line and the nearest known key are named; exit code 2."""
    recipe = tmp_path / "typo.yaml"
    recipe.write_text("name: x\nmodle: {layers: 1}\n")
    done = headway("train", str(recipe), "--store", str(place.store))
    assert done.returncode == 2
    assert f"{recipe}:2: modle: unknown key; did you mean model?" in done.stderr


def test_a_batch_that_cannot_be_divided_is_refused(place: Place) -> None:
    """The nearest batch that can be divided is named."""
    done = headway("train", str(place.recipe), "train.batch_tokens=500", "--store", str(place.store))
    assert done.returncode == 2
    assert (
        "cannot be divided into 4 lanes of whole micro-batches of 64 tokens; the nearest that can: 512" in done.stderr
    )


def test_more_ranks_than_lanes_are_refused(place: Place) -> None:
    """Five ranks cannot share four lanes."""
    done = headway("train", str(place.recipe), "--store", str(place.store), "--nproc", "5")
    assert done.returncode == 2
    assert "5 ranks cannot share a batch of 4 lanes; use at most 4" in done.stderr


def test_missing_data_says_how_to_build_it(own_data: Place) -> None:
    """A recipe whose data was never built names the command."""
    shutil.rmtree(own_data.recipe.parent / "data")
    done = headway("train", str(own_data.recipe), "--store", str(own_data.store))
    assert done.returncode == 2
    assert "headway data build" in done.stderr


def test_an_empty_corpus_is_refused(tmp_path: Path, place: Place) -> None:
    """No documents: an error that names the source."""
    (tmp_path / "empty").mkdir()
    words = [f"data.sources.json.path={tmp_path}/empty", f"data.path={tmp_path}/data"]
    done = headway("data", "build", str(place.recipe), *words)
    assert done.returncode == 2
    assert "json" in done.stderr


def test_a_tokenizer_that_does_not_match_the_shards_is_refused(own_data: Place) -> None:
    """Another tokenizer beside the same shards is noticed before anything is trained."""
    path = own_data.recipe.parent / "data" / "tokenizer.json"
    path.write_text(path.read_text().replace("endoftext", "endoftxet"))
    done = headway("train", str(own_data.recipe), "--store", str(own_data.store))
    assert done.returncode == 2
    assert "tokenizer does not match the shards" in done.stderr


def test_a_missing_run_is_named_with_those_that_exist(place: Place) -> None:
    """Looking at a run that is not there says what is."""
    done = headway("fingerprint", "nobody", "--store", str(place.store))
    assert done.returncode == 2
    assert "no run nobody" in done.stderr


@pytest.mark.slow
def test_a_recipe_that_changed_its_meaning_is_refused_on_resume(place: Place, unkilled: str) -> None:
    """Another learning rate is refused by name, another checkpoint interval is not; nothing is lost."""
    training = place.start("run")
    assert training.await_event("step.done", 10)
    training.send(signal.SIGTERM, training.family()[:1])
    assert training.wait() == 75
    changed = place.train("run", "train.optimizer.learning_rate=0.1")
    assert changed.process.returncode == 2
    assert "train.optimizer.learning_rate: 0.003 -> 0.1" in changed.messages[-1]
    assert place.train("run", "checkpoint.every_tokens=4096").process.returncode == 0
    assert place.fingerprint("run") == unkilled


@pytest.mark.slow
def test_other_data_under_the_same_run_is_refused(own_data: Place) -> None:
    """Data that was built anew, from a corpus that has grown meanwhile, does not continue a run."""
    folder = own_data.recipe.parent
    shutil.copytree(Path(json.__file__).parent, folder / "text", ignore=shutil.ignore_patterns("__pycache__"))
    text = f"data.sources.json.path={folder}/text/*.py"

    def build() -> None:
        shutil.rmtree(folder / "data")
        assert headway("data", "build", str(own_data.recipe), text).returncode == 0

    build()
    training = own_data.start("run", text)
    assert training.await_event("step.done", 5)
    training.send(signal.SIGTERM, training.family()[:1])
    assert training.wait() == 75
    (folder / "text" / "more.py").write_text("print('more')\n" * 200)
    build()
    done = own_data.train("run", text)
    assert done.process.returncode == 2
    assert "begun on other data" in done.messages[-1]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_of_two_trainings_of_one_run_one_wins(place: Place, unkilled: str, ranks: int) -> None:
    """Begun at the same time: one trains to the end, the other says who has the run; one fingerprint."""
    both = [place.start("run", ranks=ranks) for _ in range(2)]
    codes = sorted(training.wait() for training in both)
    assert codes == [0, 1]
    loser = next(training for training in both if training.process.returncode == 1)
    winner = place.history("run").attempts[-1].claim.holder
    assert f"run run is being trained by process {winner.pid} on {winner.host}" in loser.messages[-1]
    assert "--take-over" in loser.messages[-1]
    assert place.fingerprint("run") == unkilled


@pytest.mark.slow
def test_a_run_can_be_taken_over(place: Place, unkilled: str) -> None:
    """--take-over fences the first training, which exits by itself and commits nothing more."""
    first = place.start("run")
    assert first.await_event("step.done", 3)
    first.send(signal.SIGSTOP, first.ranks())
    second = place.train("run", options=["--take-over"])
    first.send(signal.SIGCONT, first.ranks())
    assert second.process.returncode == 0
    assert first.wait() == 1
    assert "is fenced" in first.messages[-1]
    history = place.history("run")
    assert {commit.attempt for commit in history.commits} == {history.attempts[-1].number}
    assert place.fingerprint("run") == unkilled


STORM = """
set -u
mount -t tmpfs -o size=$SIZE tmpfs "$STORE"
$HEADWAY train "$RECIPE" --run run --store "$STORE" --quiet; echo full $?
$HEADWAY verify run --store "$STORE" --quiet >/dev/null; echo verify $?
mount -o remount,size=50m,ro tmpfs "$STORE"
$HEADWAY train "$RECIPE" --run run --store "$STORE" --quiet; echo readonly $?
mount -o remount,rw tmpfs "$STORE"
$HEADWAY train "$RECIPE" --run run --store "$STORE" --quiet; echo mended $?
$HEADWAY fingerprint run --store "$STORE"
"""


@pytest.mark.slow
def test_a_full_disk_and_a_read_only_store_lose_nothing(place: Place, unkilled: str) -> None:
    """The disk fills up during a save, then is read-only: both end as failed; mended, the run ends as it should."""
    place.store.mkdir()
    environment = {
        "SIZE": "700k",
        "STORE": str(place.store),
        "RECIPE": str(place.recipe),
        "HEADWAY": f"{sys.executable} -m headway.cli",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", STORM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    *codes, fingerprint = done.stdout.split("\n")[:-1]
    assert codes == ["full 1", "verify 0", "readonly 1", "mended 0"], done.stderr
    assert "No space left on device" in done.stderr
    assert "Read-only file system" in done.stderr
    assert fingerprint == unkilled
