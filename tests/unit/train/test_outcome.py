"""The outcome of a launch is the end that its attempt recorded, if it recorded one."""

from collections.abc import Callable

import pytest
from tests.memory import MemoryStore

from headway.errors import StoreError
from headway.objectstore import Buffer
from headway.runs import Committed, Ended, Holder, Run, keys
from headway.train.host.outcome import Failure, Outcome, conclude

HOLDER = Holder(host="h", pid=1, started=1, launch="mine")
KILLED = Failure("", "rank 0 was killed by SIGKILL")


class Interposed(MemoryStore):
    """A store that calls `before` just before the third entry is created."""

    before: Callable[[], object] = staticmethod(lambda: None)

    def create(self, key: str, data: Buffer) -> None:
        """Call `before` once, then create."""
        if key.endswith("00000003.json"):
            before, self.before = self.before, lambda: None
            before()
        super().create(key, data)


@pytest.fixture
def store() -> Interposed:
    """A store with a run whose first attempt committed a checkpoint."""
    store = Interposed()
    journal = Run(store, "run").journal
    journal.claim(lambda: None, holder=HOLDER, recipe="r")
    journal.append(Committed, 1, tokens=10, manifest=keys.checkpoint_manifest("run", 10, 1), sha256="0" * 64, bytes=1)
    return store


def test_a_dead_attempt_is_recorded_as_failed(store: Interposed) -> None:
    """The launch records the failure with its reason."""
    outcome = conclude(Run(store, "run"), "mine", KILLED, stop_requested=False)
    assert outcome == Outcome("failed", KILLED.message, 10, 1, 1)
    assert Run(store, "run").history().attempts[0].outcome == "failed"


def test_an_end_that_the_attempt_records_meanwhile_counts(store: Interposed) -> None:
    """The attempt records `done` between the read and the write of the launch."""
    store.before = lambda: Run(store, "run").journal.append(
        Ended, 1, outcome="done", reason="budget reached", tokens=10
    )
    outcome = conclude(Run(store, "run"), "mine", None, stop_requested=False)
    assert (outcome.outcome, outcome.reason, outcome.tokens) == ("done", "budget reached", 10)
    assert [type(entry) for entry in Run(store, "run").journal.read()][2:] == [Ended]


def test_a_lost_run_gets_no_end_from_the_old_launch(store: Interposed) -> None:
    """After a newer claim the launch returns its outcome, but does not record it."""
    other = Holder(host="h", pid=2, started=1, launch="other")
    store.before = lambda: Run(store, "run").journal.claim(lambda: None, holder=other, recipe="r")
    outcome = conclude(Run(store, "run"), "mine", KILLED, stop_requested=False)
    assert (outcome.outcome, outcome.reason) == ("failed", KILLED.message)
    assert [attempt.outcome for attempt in Run(store, "run").history().attempts] == ["open", "open"]


def test_a_failing_store_does_not_change_the_outcome(store: Interposed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome cannot be recorded, but is returned."""

    def fail(*_: object) -> None:
        raise StoreError("no answer")

    monkeypatch.setattr(store, "create", fail)
    outcome = conclude(Run(store, "run"), "mine", None, stop_requested=True)
    assert (outcome.outcome, outcome.exit_code) == ("preempted", 75)
