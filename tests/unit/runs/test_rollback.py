"""A person goes back to a checkpoint: by a decision that is recorded once, names the person, and holds from then on."""

import getpass
import json
import os
import socket

import pytest
from tests.memory import MemoryStore
from tests.unit.runs.small_recipe import recipe

from headway.errors import FencedError, HeldError, UsageError
from headway.runs import Claimed, Committed, Decided, Ended, Holder, Run, keys, this_process
from headway.runs.entries import encode
from headway.runs.rollback import person, roll_back, stands_at

TRAINER = Holder(host="node", pid=1, started=1, launch="training")
OPERATOR = this_process("operator")


def commit(run: Run, tokens: int) -> Committed:
    """Commit a checkpoint in the name of the newest attempt."""
    attempt = run.history().attempts[-1].number
    manifest = keys.checkpoint_manifest(run.name, tokens, attempt)
    return run.journal.append(Committed, attempt, tokens=tokens, manifest=manifest, sha256="0" * 64, bytes=1)


def skip(run: Run, tokens: int) -> None:
    """Decide to skip the batch at `tokens`."""
    attempt = run.history().attempts[-1].number
    run.journal.append(Decided, attempt, action="skip", reason="nan", skip_from=tokens, skip_to=tokens + 10)


@pytest.fixture
def run() -> Run:
    """A run with checkpoints at 10, 20 and 30 tokens that skipped the batches at 0 and 20, and failed."""
    run = Run(MemoryStore(), "run")
    run.freeze(recipe())
    run.claim(TRAINER, recipe(), "data")
    skip(run, 0)
    commit(run, 10)
    commit(run, 20)
    skip(run, 20)
    commit(run, 30)
    run.journal.append(Ended, 1, outcome="failed", reason="diverged", tokens=30)
    return run


def test_a_run_continues_from_the_checkpoint_that_a_person_went_back_to(run: Run) -> None:
    """Later checkpoints no longer count; an attempt of its own has the decision, with the name of who decided."""
    roll_back(run, 20, OPERATOR)
    history = Run(run.store, "run").history()
    assert [each.tokens for each in history.commits] == [10, 20]
    assert [each.tokens for each in history.rolled_back] == [30]
    decision = history.attempts[-1].decisions[-1]
    assert decision.by == f"{getpass.getuser()}@{socket.gethostname()}"
    assert (decision.action, decision.restored) == ("rollback", 20)
    assert history.attempts[-1].claim.holder == OPERATOR
    assert history.attempts[-1].end
    assert not history.damaged
    run.claim(TRAINER, recipe(), "data")
    assert run.history().requested_rollback == decision


def test_decisions_about_later_batches_end_and_earlier_ones_hold(run: Run) -> None:
    """What was wrong with batches after the checkpoint is judged anew; all decisions stay in the history."""
    roll_back(run, 20, OPERATOR)
    history = run.history()
    assert [each.skip_from for each in history.bad_batches] == [0]
    assert history.skip_decision(0)
    assert not history.skip_decision(20)
    assert len(history.decisions) == 3
    run.claim(TRAINER, recipe(), "data")
    skip(run, 20)
    assert run.history().skip_decision(20)


def test_the_beginning_is_a_place_to_go_back_to(run: Run) -> None:
    """With 0 no checkpoint and no decision is left."""
    roll_back(run, 0, OPERATOR)
    history = run.history()
    assert (history.commits, history.bad_batches, history.tokens) == ([], [], 0)


def test_a_decision_is_not_repeated_where_the_run_stands_already(run: Run) -> None:
    """The same command after a kill records nothing; once something came after the checkpoint, it decides again."""
    roll_back(run, 20, OPERATOR)
    entries = len(run.journal.read())
    roll_back(run, 20, OPERATOR)
    assert len(run.journal.read()) == entries
    assert stands_at(run.history(), 20)
    run.claim(TRAINER, recipe(), "data")
    skip(run, 20)
    assert not stands_at(run.history(), 20)


def test_a_position_without_a_checkpoint_is_refused_with_those_that_exist(run: Run) -> None:
    """Nothing is written; a checkpoint that was given up is none."""
    entries = len(run.journal.read())
    with pytest.raises(UsageError, match=r"no checkpoint at 15 tokens; it can go back to: 0, 10, 20, 30$"):
        roll_back(run, 15, OPERATOR)
    assert len(run.journal.read()) == entries
    roll_back(run, 10, OPERATOR)
    with pytest.raises(UsageError, match=r"it can go back to: 0, 10$"):
        roll_back(run, 20, OPERATOR)


def test_a_run_that_is_trained_is_not_taken_unless_told_so(run: Run) -> None:
    """A live process is named; taken over, it can commit nothing more."""
    trainer = run.claim(OPERATOR, recipe(), "data").attempt
    with pytest.raises(HeldError):
        roll_back(Run(run.store, "run"), 10, TRAINER)
    roll_back(Run(run.store, "run"), 10, TRAINER, take_over=True)
    with pytest.raises(FencedError):
        run.journal.append(Ended, trainer, outcome="done", reason="", tokens=40)


def test_a_kill_before_the_decision_changes_nothing_and_after_it_nothing_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision alone is the act: the claim before it leaves the run as it was, the end after it adds nothing."""
    append = run.journal.append

    def cut(kind: type) -> None:
        def killed(entry: type, *values: object, **fields: object) -> object:
            if entry is kind:
                raise KeyboardInterrupt
            return append(entry, *values, **fields)  # type: ignore[arg-type]

        monkeypatch.setattr(run.journal, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            roll_back(run, 20, OPERATOR, take_over=True)

    cut(Decided)
    assert isinstance(run.journal.read()[-1], Claimed)
    assert run.history().tokens == 30
    cut(Ended)
    assert run.history().tokens == 20
    run.claim(TRAINER, recipe(), "data", take_over=True)
    assert [each.tokens for each in run.history().commits] == [10, 20]


def test_a_done_run_is_not_done_after_going_back(run: Run) -> None:
    """It has tokens left to train again."""
    attempt = run.claim(TRAINER, recipe(), "data").attempt
    run.journal.append(Ended, attempt, outcome="done", reason="budget reached", tokens=30)
    assert run.history().done
    roll_back(run, 10, OPERATOR)
    assert not run.history().done


def test_the_decision_is_no_attempt_of_its_launch_to_train(run: Run) -> None:
    """Else its end would count as the outcome of the launch, and a failure of the ranks would be lost."""
    roll_back(run, 10, OPERATOR)
    assert run.history().attempts_of(OPERATOR.launch) == []


def test_a_user_without_a_name_is_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as a user that its password file lacks."""

    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", fail)
    assert person() == f"uid {os.getuid()}@{socket.gethostname()}"


def test_a_decision_of_the_recipe_has_the_keys_of_before(run: Run) -> None:
    """Versions of Headway that know no persons read it; only the decision of a person has one."""
    roll_back(run, 20, OPERATOR)
    skips, rollback = run.history().decisions[:2], run.history().decisions[2]
    assert all("by" not in json.loads(encode(decision)) for decision in skips)
    assert json.loads(encode(rollback))["by"] == person()
