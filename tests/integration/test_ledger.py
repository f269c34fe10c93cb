"""The ledger of a run that was really killed agrees with clocks that it does not know of."""

import json
import os
import signal
import time

import pytest

from headway.cli import main
from headway.reports.time_accounting import account_time
from headway.runs import keys
from tests.integration.training import Place, Training

TOLERANCE = 1e-3
"""Share of the wall clock by which the sums may be off."""
TICK = 1 / os.sysconf("SC_CLK_TCK")
"""To which the kernel knows when a process began [s]; of a single short attempt that is more than the tolerance."""


def started(place: Place, ranks: int) -> tuple[Training, float, float]:
    """A training, and moments just before and just after its process began."""
    before = time.time()
    training = place.start("run", ranks=ranks)
    return training, before, time.time()


@pytest.mark.slow
def test_the_ledger_agrees_with_an_independent_clock(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped, queued, killed, resumed on other numbers of ranks: all columns add up to what the file system saw."""

    def written(sequence: int) -> float:
        """When a journal entry came to be, by the file system."""
        return (place.store / keys.journal_entry("run", sequence)).stat().st_mtime

    first, before, after = started(place, ranks=2)
    assert first.await_event("step.done", 5), first.messages
    first.send(signal.SIGTERM, first.family()[:1])
    assert first.wait() == 75
    (ended,) = (attempt.end for attempt in place.history("run").attempts)
    assert ended
    submitted, given = after, (written(ended.seq) + time.time()) / 2  # submitted while the first still ran
    monkeypatch.setenv("HEADWAY_QUEUE", f"{submitted}:{given}")
    second = place.start("run", ranks=1)
    assert second.await_event("checkpoint.committed"), second.messages
    second.send(signal.SIGKILL, second.family())
    killed = time.time()
    second.wait()
    monkeypatch.delenv("HEADWAY_QUEUE")
    third, third_before, third_after = started(place, ranks=3)
    assert third.wait() == 0

    attempts = place.history("run").attempts
    ends = [written(attempt.end.seq) if attempt.end else None for attempt in attempts]
    assert [end is not None for end in ends] == [True, False, True]
    with pytest.raises(SystemExit):
        main(["ledger", "run", "--store", str(place.store), "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["attempt"] for row in rows] == [
        attempt.number for attempt, ranks in zip(attempts, (2, 1, 3), strict=True) for _ in range(ranks)
    ]
    for row in rows:
        assert sum(row["phases"].values()) == pytest.approx(row["wall"], rel=TOLERANCE)
    for row, begun, over, end in ((rows[0], before, after, ends[0]), (rows[3], third_before, third_after, ends[2])):
        assert end is not None
        assert (end - over) * (1 - TOLERANCE) <= row["wall"] <= (end - begun) * (1 + TOLERANCE) + TICK
    queued = rows[2]
    assert queued["began"] == pytest.approx(ends[0], abs=TOLERANCE * queued["wall"])
    assert queued["phases"]["queue"] == pytest.approx(given - queued["began"], abs=1e-5)
    assert queued["ended"] <= killed

    with pytest.raises(SystemExit):
        main(["goodput", "run", "--store", str(place.store), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert ends[2] is not None
    assert (ends[2] - after) * (1 - TOLERANCE) <= document["sum"] <= (ends[2] - before) * (1 + TOLERANCE)
    assert document["sum"] == pytest.approx(document["elapsed"], rel=TOLERANCE)
    assert 0 < document["wall_goodput"] < document["goodput"] < 1


@pytest.mark.slow
def test_what_a_hurried_end_did_not_save_is_lost(place: Place) -> None:
    """Asked twice while its ranks cannot look, a run ends without a save: its steps are lost, and nothing else is."""
    training = place.start("run", "checkpoint.every_tokens=20480", ranks=1)
    assert training.await_event("step.done", 3), training.messages
    ranks = training.ranks()
    training.send(signal.SIGSTOP, ranks)
    for _ in range(2):
        training.send(signal.SIGTERM, training.family()[:1])
        time.sleep(1.1)  # what comes within a second is one signal
    training.send(signal.SIGCONT, ranks)
    assert training.wait() == 75
    (attempt,) = place.history("run").attempts
    assert attempt.end
    assert attempt.end.tokens > 0
    assert attempt.commits == []
    (line,) = account_time(place.run("run")).rank_times
    assert line.phases["step"] == line.phases["drain"] == 0
    assert line.phases["lost"] == pytest.approx(line.ended - attempt.claim.time, abs=0.5)
    assert line.difference == pytest.approx(0, abs=1e-6)
