"""What a launch says of an attempt is what the attempt said itself, if it said anything."""

from collections.abc import Callable

import pytest
from tests.memory import MemoryStore

from headway.errors import StoreError
from headway.objectstore import Buffer
from headway.runs import Committed, Ended, Holder, Run
from headway.train.outcome import Failure, Outcome, conclude

HOLDER = Holder(host="h", pid=1, started=1, launch="mine")
KILLED = Failure("", "rank 0 was killed by SIGKILL")


class Interposed(MemoryStore):
    """A store in which something happens just before the third entry is created."""

    before: Callable[[], object] = staticmethod(lambda: None)

    def create(self, key: str, data: Buffer) -> None:
        """Create, after what happens before."""
        if key.endswith("00000003.json"):
            happen, self.before = self.before, lambda: None
            happen()
        super().create(key, data)


@pytest.fixture
def store() -> Interposed:
    """A store with a run whose first attempt committed a checkpoint."""
    made = Interposed()
    journal = Run(made, "run").journal
    journal.claim(lambda: None, holder=HOLDER, recipe="r")
    journal.append(Committed, 1, tokens=10, manifest="m", sha256="0", bytes=1)
    return made


def test_an_attempt_that_died_is_said_to_have_failed(store: Interposed) -> None:
    """Nobody else can say it, so the launch does, with the reason."""
    outcome = conclude(Run(store, "run"), "mine", KILLED, stopped=False)
    assert outcome == Outcome("failed", KILLED.message, 10, 1, 1)
    assert Run(store, "run").history().attempts[0].outcome == "failed"


def test_an_attempt_that_ends_while_the_launch_looks_has_the_last_word(store: Interposed) -> None:
    """Between the launch's look and its word the attempt itself says that it is done: that is how it went."""
    store.before = lambda: Run(store, "run").journal.append(
        Ended, 1, outcome="done", reason="budget reached", tokens=10
    )
    outcome = conclude(Run(store, "run"), "mine", None, stopped=False)
    assert (outcome.outcome, outcome.reason, outcome.tokens) == ("done", "budget reached", 10)
    assert [type(entry) for entry in Run(store, "run").journal.read()][2:] == [Ended]


def test_an_attempt_that_is_taken_over_meanwhile_is_said_nothing_of(store: Interposed) -> None:
    """A newer claim between look and word: the launch says how it went to whoever started it, not to the journal."""
    other = Holder(host="h", pid=2, started=1, launch="other")
    store.before = lambda: Run(store, "run").journal.claim(lambda: None, holder=other, recipe="r")
    outcome = conclude(Run(store, "run"), "mine", KILLED, stopped=False)
    assert (outcome.outcome, outcome.reason) == ("failed", KILLED.message)
    assert [attempt.outcome for attempt in Run(store, "run").history().attempts] == ["open", "open"]


def test_a_store_that_fails_does_not_hide_how_it_went(store: Interposed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal cannot be told; the launch's answer is the same."""

    def fail(*_: object) -> None:
        raise StoreError("no answer")

    monkeypatch.setattr(store, "create", fail)
    outcome = conclude(Run(store, "run"), "mine", None, stopped=True)
    assert (outcome.outcome, outcome.exit_code) == ("preempted", 75)
