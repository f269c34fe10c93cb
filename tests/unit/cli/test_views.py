"""Views of runs, on a terminal and as JSON."""

import json
import re
from pathlib import Path

import pytest
from tests.plugin.install import install
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, plan, restored, running, said, step, trained

from headway.cli import screen
from headway.events.training_events import AttemptEnded, CheckpointDamaged
from headway.objectstore.folder import FolderStore
from headway.runs import Run, keys, this_process
from headway.runs.rollback import person, roll_back

OF_A_RUN = ("status", "logs", "ledger", "goodput", "plot", "verify", "fingerprint", "export")


@pytest.mark.parametrize("command", OF_A_RUN)
def test_a_missing_run_is_wrong_use(headway: Headway, store: FolderStore, command: str) -> None:
    """An unknown run exits with 2, and the message lists the existing runs."""
    Story(store, "there")
    answer = headway(command, "missing", *(["--to", "x"] if command == "export" else []))
    assert answer.code == 2
    assert answer.out == ""
    assert "no run missing" in answer.err
    assert "there are: there" in answer.err


def test_a_run_of_a_package_that_is_missing_is_shown(
    headway: Headway, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its optimizer is not installed, `status` and `verify` say so, and `export` refuses."""
    with monkeypatch.context() as installed:
        install(tmp_path / "installed", installed)
        train = {"tokens": 10_000, "batch_tokens": 1000, "micro_batch_tokens": 1000, "optimizer": {"kind": "lion"}}
        story = Story(store, "foreign", plan(train=train))
        story.claim(100)
        story.commit(105, 5000)
        assert headway("verify", "foreign").code == 0
    problem = "unknown kind 'lion'; installed kinds: adamw"
    status = headway("status", "foreign", "--json").document
    assert (status["tokens"], status["budget"]) == (5000, None)
    assert problem in status["damage"][0]
    (finding,) = headway("verify", "foreign", "--json").document["findings"]
    assert problem in json.dumps(finding)
    refused = headway("export", "foreign", "--to", str(tmp_path / "model"))
    assert refused.code == 2
    assert problem in refused.err


def test_runs_tells_each_state(headway: Headway, store: FolderStore) -> None:
    """Done, preempted, failed, killed, running and new runs have their own state and their losses."""
    trained(Story(store, "a-done"))
    preempted, failed, killed = Story(store, "b-preempted"), Story(store, "c-failed"), Story(store, "d-killed")
    for story in (preempted, failed, killed):
        story.claim(100)
        story.commit(105, 5000)
    preempted.end(110, "preempted", 5000)
    failed.end(110, "failed", 5000)
    killed.beat(108, 6000)
    running(Story(store, "e-running"))
    Story(store, "f-new")

    rows = {row["run"]: row for row in headway("runs", "--json").document["runs"]}
    assert [row["state"] for row in rows.values()] == ["done", "preempted", "failed", "killed", "running", "new"]
    done = rows["a-done"]
    assert (done["tokens"], done["budget"], done["share"]) == (10000, 10000, 1.0)
    assert (done["loss"], done["held_out"]) == (1.5, 1.75)
    assert (done["attempts"], done["preemptions"], done["failures"], done["seen"]) == (5, 1, 3, 221.01)
    assert rows["d-killed"]["tokens"] == 5000
    assert rows["d-killed"]["seen"] == 108
    assert (rows["e-running"]["tokens"], rows["e-running"]["share"]) == (4000, 0.4)
    assert (rows["f-new"]["tokens"], rows["f-new"]["seen"], rows["f-new"]["loss"]) == (0, None, None)


def test_runs_prints_a_table(headway: Headway, store: FolderStore) -> None:
    """The terminal shows one line per run, with thousands separators and percentages."""
    running(Story(store, "live"))
    lines = headway("runs").out.splitlines()
    assert len(lines) == 2
    assert re.search(r"live +running +4,000 +10,000 +40.0%", lines[1])


def test_no_runs_is_said_on_standard_error(headway: Headway, store: FolderStore) -> None:
    """An empty store is not an error: the terminal shows how to start, `--json` prints an empty list."""
    assert "start one with headway train" in headway("runs").err
    assert headway("runs").out == ""
    assert headway("runs", "--quiet").err == ""
    assert headway("runs", "--json").document == {"store": store.url, "runs": [], "findings": []}


def test_a_damaged_recipe_does_not_hide_the_other_runs(headway: Headway, store: FolderStore) -> None:
    """A run with a damaged recipe is listed with an unknown budget and its problem."""
    trained(Story(store, "bad"))
    running(Story(store, "good"))
    store.put(keys.recipe("bad"), [b"name: [\n"])
    answer = headway("runs", "--json")
    bad, good = answer.document["runs"]
    assert (bad["budget"], bad["share"], good["budget"]) == (None, None, 10000)
    assert "recipe" in bad["problem"]
    assert "run bad" in answer.err


def test_status_tells_every_attempt(headway: Headway, store: FolderStore) -> None:
    """Each attempt has its outcome, its reason, its times, and its first and last tokens."""
    trained(Story(store, "tale"))
    document = headway("status", "tale", "--json").document
    attempts = document["attempts"]
    assert [each["outcome"] for each in attempts] == ["preempted", "killed", "killed", "failed", "done"]
    assert [(each["from_tokens"], each["to_tokens"]) for each in attempts] == [
        (0, 2000),
        (2000, 4000),
        (4000, 4000),
        (4000, 7000),
        (7000, 10000),
    ]
    assert [each["seen"] for each in attempts] == [110.5, 145, 165, 195, 221.01]
    assert attempts[3]["reason"] == "rank 0 was killed by SIGKILL"
    assert document["checkpoint"]["tokens"] == 10000
    assert (document["state"], document["holder"], document["continue"]) == ("done", None, None)


def test_status_of_a_running_run_names_holder_and_time_left(headway: Headway, store: FolderStore) -> None:
    """A running run has a holder, a phase and an estimate of the time left."""
    running(Story(store, "live"))
    document = headway("status", "live", "--json").document
    assert document["holder"]["process"] == "process 101 on node-7"
    assert document["holder"]["phase"] == "step"
    assert document["tokens_per_second"] == pytest.approx(500)
    assert document["seconds_left"] == pytest.approx(12)
    shown = headway("status", "live").out
    assert "held by" in shown
    assert "time left   12 s at 500 tokens/s" in shown
    assert "continue with" not in shown


def test_status_names_the_command_that_goes_on(headway: Headway, store: FolderStore) -> None:
    """A stopped run has a command that continues it: its frozen recipe, its name, its store."""
    story = Story(store, "tale")
    story.claim(100)
    story.end(110, "preempted", 0)
    words = headway("status", "tale", "--json").document["continue"].split()
    assert words[:2] == ["headway", "train"]
    assert Path(words[2]).read_bytes() == store.get(keys.recipe("tale"))
    assert words[3:] == ["--run", "tale", "--store", store.url]


def test_an_attempt_begins_where_it_restored(headway: Headway, store: FolderStore) -> None:
    """An attempt that found the newest checkpoint damaged starts at an older one."""
    story = Story(store, "tale")
    story.claim(100)
    story.commit(105, 2000)
    story.commit(106, 3000)
    story.end(110, "preempted", 3000)
    story.claim(120)
    story.say(said(CheckpointDamaged(at=3000, problem="a bit")), restored(2000), step(3000))
    story.end(130, "preempted", 2000)
    last = headway("status", "tale", "--json").document["attempts"][-1]
    assert (last["from_tokens"], last["to_tokens"]) == (2000, 2000)


def test_a_roll_back_is_not_called_a_kill(headway: Headway, store: FolderStore) -> None:
    """An attempt that rolled back and was followed by the next is shown as rolled back, with the reason."""
    story = Story(store, "tale")
    story.claim(100)
    story.commit(105, 2000)
    story.decide(108, "rollback", 2000, 4000, restored=2000)
    story.claim(108.5, lost_at=108.2)
    story.end(120, "preempted", 2000)
    document = headway("status", "tale", "--json").document
    assert document["attempts"][0]["outcome"] == "rolled back"
    assert document["attempts"][0]["reason"] == "loss nan"
    assert document["decisions"][0]["skip_to"] == 4000
    assert "rollback" in headway("status", "tale").out


def test_status_tells_who_went_back(headway: Headway, store: FolderStore) -> None:
    """The attempt that only decided is `rolled back`, to its checkpoint; the run waits to be continued from there."""
    story = Story(store, "tale")
    story.claim(100)
    story.commit(105, 2000)
    story.commit(107, 4000)
    story.end(109, "failed", 4000, "diverged")
    roll_back(Run(store, "tale"), 2000, this_process("operator"))
    document = headway("status", "tale", "--json").document
    assert (document["state"], document["tokens"]) == ("preempted", 2000)
    attempt, decision = document["attempts"][-1], document["decisions"][-1]
    assert (attempt["outcome"], attempt["from_tokens"], attempt["to_tokens"]) == ("rolled back", 4000, 2000)
    assert decision["by"] == person()
    assert attempt["reason"] == f"{person()} went back to 2,000 tokens"
    assert person() in headway("status", "tale").out
    assert headway("ledger", "tale").code == 0


def test_status_names_damage_in_the_journal(headway: Headway, store: FolderStore) -> None:
    """A changed entry is reported on the terminal and in JSON."""
    trained(Story(store, "tale"))
    entry = keys.journal_entry("tale", 5)
    store.put(entry, [store.get(entry).replace(b"4000,", b"4001,")])
    assert headway("status", "tale", "--json").document["damage"] == ["journal entry 5 does not match its own checksum"]
    assert "journal entry 5" in headway("status", "tale").out


def test_logs_come_in_order_and_by_attempt(headway: Headway, store: FolderStore) -> None:
    """Events are printed oldest first, one per line; --attempt selects one attempt; --json prints them as stored."""
    trained(Story(store, "tale"))
    lines = headway("logs", "tale").out.splitlines()
    assert len(lines) == 23
    assert "attempt.claimed" in lines[0]
    assert "outcome=done" in lines[-1]
    alone = headway("logs", "tale", "--attempt", "7").out.splitlines()
    assert ["  7:0  " in line for line in alone] == [True] * 6
    stored = [json.loads(line) for line in headway("logs", "tale", "--attempt", "7", "--json").out.splitlines()]
    assert [event["event"] for event in stored] == ["attempt.claimed", "checkpoint.restored", *["step.done"] * 4]


def test_following_a_log_ends_with_the_run(
    headway: Headway, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New events are printed while a log is followed, including those after the end of the run."""
    story = running(Story(store, "live"))
    chapters = iter(
        (
            lambda: story.say(step(5000)),
            lambda: story.end(1.0, "done", 5000),
            lambda: story.say(said(AttemptEnded(outcome="done", reason="budget reached"), tokens=5000)),
        )
    )
    monkeypatch.setattr("headway.cli.logs.time.sleep", lambda _: next(chapters)())
    answer = headway("logs", "live", "--follow")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert len(lines) == 7
    assert "5,000" in lines[5]
    assert "attempt.ended" in lines[-1]
    assert "run live is done" in answer.err


def test_ctrl_c_ends_following_in_order(headway: Headway, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends `--follow` with 0, and any other command with 130 and without a traceback."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    running(Story(store, "live"))
    monkeypatch.setattr("headway.cli.logs.time.sleep", interrupt)
    answer = headway("logs", "live", "-f")
    assert (answer.code, answer.err) == (0, "")
    monkeypatch.setattr("headway.cli.status.run_status", interrupt)
    answer = headway("status", "live")
    assert (answer.code, answer.err) == (130, "")


def test_a_person_reads_sizes_and_spans_at_a_glance() -> None:
    """Sizes, durations and shares have readable units."""
    assert [screen.size(n) for n in (0, 999, 1500, 11_047_264, 3e12)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "11.0 MB",
        "3.0 TB",
    ]
    assert [screen.span(s) for s in (0.25, 59, 61, 3600, 90_000)] == [
        "0.2 s",
        "59 s",
        "1 min 1 s",
        "1 h 0 min",
        "1 d 1 h",
    ]
    assert screen.percent(0.125) == "12.5%"
