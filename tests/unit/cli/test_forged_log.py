"""Whatever stands in the log of a run, the views of the run show what is sound, and fail at nothing."""

import json
from typing import Any

import pytest
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, said, step, trained

from headway.events.training_events import AttemptClaimed
from headway.objectstore.folder import FolderStore
from headway.reports.time_accounting import MAX_RANKS, account_time
from headway.runs import Run, keys

FORGED: list[Any] = [
    "[" * 100_000,
    '{"event": ' * 5_000,
    "NaN",
    '"step.done"',
    f'{{"event": "step.done", "tokens": {"9" * 5000}}}',
    json.dumps({"event": ["step.done"], "tokens": {}, "phase": [], "attempt": "1", "rank": None, "timestamp": 10**18}),
    *(
        json.dumps(step(2000) | changes)
        for changes in (
            {"tokens": "2000", "phase": {"a": 1}},
            {"tokens": 10**100},
            {"loss": "low"},
            {"loss": 10**400},
            {"learning_rate": None},
            {"attempt": 1.5},
            {"timestamp": "0001-01-01T00:00:00"},
            {"timestamp": "9999-12-31T23:59:59+00:00", "tokens": True},
        )
    ),
    json.dumps({"event": "checkpoint.restored", "tokens": 0}),
    json.dumps({"event": "evaluation.done", "held_out": [], "tokens": 1}),
    json.dumps({"event": "attempt.claimed", "ranks": "many"}),
]
"""Lines that no Headway writes: not JSON, of other types, out of bounds."""


def forge(store: FolderStore, run: str) -> None:
    """Put forged lines before and after each line of a run's log."""
    forged = "".join(f"{line}\n" for line in FORGED)
    for key in list(store.list(keys.log(run))):
        lines = store.get(key).decode().splitlines()
        store.put(key, [(forged + "".join(f"{line}\n{forged}" for line in lines)).encode()])


def test_the_views_of_a_run_pass_over_forged_lines(headway: Headway, store: FolderStore) -> None:
    """Status, time and figure are what they were without them."""
    trained(Story(store, "tale"))
    commands = ("status", "ledger", "goodput", "plot")
    before = [headway(command, "tale", "--json").document for command in commands]
    forge(store, "tale")
    assert [headway(command, "tale", "--json").document for command in commands] == before


def test_logs_prints_what_is_json(headway: Headway, store: FolderStore) -> None:
    """A line of another version or of a stranger is printed as it is, with a table as far as it has the columns."""
    trained(Story(store, "tale"))
    forge(store, "tale")
    printed = headway("logs", "tale")
    assert printed.code == 0
    assert sum("outcome=done" in line for line in printed.out.splitlines()) == 1
    as_stored = headway("logs", "tale", "--json")
    assert as_stored.code == 0
    assert {type(json.loads(line)) for line in as_stored.out.splitlines()} == {dict}


@pytest.mark.parametrize(("claimed", "ranks"), [(3, 3), (MAX_RANKS, MAX_RANKS), (MAX_RANKS + 1, 1), (0, 1), (-5, 1)])
def test_a_log_cannot_claim_any_number_of_ranks(store: FolderStore, claimed: int, ranks: int) -> None:
    """Each rank of an attempt without a ledger is a row of the account, so their number has a bound."""
    story = Story(store, "tale")
    story.claim(100)
    story.say(said(AttemptClaimed(ranks=claimed)))
    story.end(110, "failed", 0)
    assert len(account_time(Run(store, "tale")).rank_times) == ranks
