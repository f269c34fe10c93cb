"""Phases and `between` add up to the elapsed time, for all overlaps, numbers of ranks and endings of attempts."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as draw
from tests.memory import MemoryStore
from tests.unit.cli.story import Story

from headway.reports.time_accounting import RankTime, TimeAccounting, account_time
from headway.reports.wall_time import wall_time
from headway.runs import Run, keys
from headway.runs.ledger import LedgerRow
from headway.telemetry.phases import PHASES

NOTHING = dict.fromkeys(PHASES, 0.0)


def rank_time(attempt: int, rank: int, started: float, fenced_at: float = math.inf, **phases: float) -> RankTime:
    """The time of a rank with consecutive phases from `started` on."""
    return RankTime(attempt, rank, "killed", started, started + sum(phases.values()), NOTHING | phases, fenced_at)


@dataclass(frozen=True)
class SimpleAttempt:
    """A generated attempt; all times are whole seconds."""

    gap: int
    """Time from the end of the previous attempt to the submission; negative if they overlap."""
    queue: int
    startup: int
    """Time until the claim, by which all ranks have started."""
    step: int
    lost: int
    late: list[int]
    """Delay of each rank's start behind the first rank's."""


SIMPLE_ATTEMPT = draw.builds(
    SimpleAttempt,
    gap=draw.integers(-30, 30),
    queue=draw.integers(0, 30),
    startup=draw.integers(5, 10),
    step=draw.integers(0, 20),
    lost=draw.integers(0, 20),
    late=draw.lists(draw.integers(0, 5), min_size=1, max_size=4),
)


def rank_times(attempts: list[SimpleAttempt]) -> list[RankTime]:
    """The rank times of a generated run. An attempt may start any time before its claim."""
    starts: list[int] = []
    at = 100
    for each in attempts:
        starts.append(at := max([*starts, at + each.gap]))
        at += each.queue + each.startup + each.step + each.lost
    claims = [start + each.queue + each.startup for start, each in zip(starts, attempts, strict=True)]
    claims = [max(claims[: index + 1]) for index in range(len(claims))]
    times = []
    for index, (each, start, fenced_at) in enumerate(zip(attempts, starts, [*claims[1:], math.inf], strict=True)):
        for rank, late in enumerate(each.late):
            phases = {"queue": each.queue, "startup": each.startup, "step": each.step, "lost": each.lost}
            started = start + (min(late, each.queue) if each.queue else late)
            phases["queue"] -= started - start if each.queue else 0
            times.append(rank_time(index, rank, started, fenced_at, **phases))
    return times


def uncovered(times: list[RankTime]) -> float:
    """Seconds without an attempt, counted one by one: a missing rank of n counts for 1/n."""
    total, moment = 0.0, int(min(each.started for each in times))
    attempts = [[each for each in times if each.attempt == number] for number in sorted({e.attempt for e in times})]
    while remaining := [ranks for ranks in attempts if any(min(e.ended, e.fenced_at) > moment for e in ranks)]:
        oldest = remaining[0]
        total += sum(not each.started <= moment < min(each.ended, each.fenced_at) for each in oldest) / len(oldest)
        moment += 1
    return total


@given(draw.lists(SIMPLE_ATTEMPT, min_size=1, max_size=6))
def test_phases_and_gaps_add_up_to_the_elapsed_time(attempts: list[SimpleAttempt]) -> None:
    """Nothing is counted twice or invented."""
    times = rank_times(attempts)
    wall = wall_time(TimeAccounting(times, running_attempt=None))
    last = max(max(each.started, min(each.ended, each.fenced_at)) for each in times)
    assert wall.elapsed == pytest.approx(last - min(each.started for each in times), abs=1e-6)
    assert wall.sum == pytest.approx(wall.elapsed, abs=1e-6)
    assert wall.between == pytest.approx(uncovered(times), abs=1e-6)
    ranks = {each.attempt: sum(other.attempt == each.attempt for other in times) for each in times}
    for phase in PHASES:
        averaged = sum(each.phases[phase] / ranks[each.attempt] for each in times)
        assert -1e-6 <= wall.phases[phase] <= averaged + 1e-6
    assert 0 <= wall.goodput <= 1


def test_without_overlap_each_rank_counts_for_its_share() -> None:
    """The means of two attempts, with two and four ranks, add up; the gap counts separately."""
    first = [rank_time(1, rank, 0, startup=5, step=20) for rank in range(2)]
    second = [rank_time(2, rank, 30, queue=6, startup=4, step=20 + rank, lost=10 - rank) for rank in range(4)]
    wall = wall_time(TimeAccounting([*first, *second], running_attempt=None))
    assert wall.between == 5
    assert wall.phases == pytest.approx(NOTHING | {"queue": 6, "startup": 9, "step": 41.5, "lost": 8.5})
    assert wall.elapsed == wall.sum == 70
    assert wall.goodput == pytest.approx(41.5 / 70)


def test_time_before_a_claim_belongs_to_the_older_attempt() -> None:
    """After a take-over at 30 s the older attempt's time does not count."""
    older = rank_time(1, 0, 0, fenced_at=30, startup=5, step=20, lost=12)
    newer = rank_time(2, 0, 22, queue=4, startup=4, step=10)
    wall = wall_time(TimeAccounting([older, newer], running_attempt=None))
    assert wall.phases == pytest.approx(NOTHING | {"startup": 5, "step": 30, "lost": 5})
    assert wall.elapsed == wall.sum == 40


def test_a_late_rank_counts_as_missing() -> None:
    """One of two ranks starts 4 s later, so half of the run is missing for 4 s."""
    wall = wall_time(TimeAccounting([rank_time(1, 0, 0, step=10), rank_time(1, 1, 4, step=6)], running_attempt=None))
    assert (wall.phases["step"], wall.between, wall.elapsed) == (8, 2, 10)


def test_wrong_accounting_shows_as_a_difference() -> None:
    """Phases that do not add up to a rank's time are not adjusted."""
    wrong = RankTime(1, 0, "done", 0, 20, NOTHING | {"step": 17.0})
    wall = wall_time(TimeAccounting([wrong], running_attempt=None))
    assert (wall.elapsed, wall.sum, wall.difference) == (20, 17, 3)


def test_a_run_without_time_has_no_goodput() -> None:
    """A run without time has goodput 0, without a division by zero."""
    wall = wall_time(TimeAccounting([], running_attempt=None))
    assert (wall.elapsed, wall.sum, wall.goodput) == (0, 0, 0)


@dataclass(frozen=True)
class StoredAttempt:
    """A generated attempt for a run store; all times are whole seconds."""

    idle: int
    """Time from the end of the previous attempt to this launch; negative if they overlap."""
    queue: int
    startup: int
    step: int
    ending: str
    """An outcome, `killed`, or `zombie`: it went on after the next attempt's claim."""
    after: int
    """Time from the last ledger row to the end."""
    ranks: int


STORED_ATTEMPT = draw.builds(
    StoredAttempt,
    idle=draw.integers(-5, 20),
    queue=draw.integers(0, 40),
    startup=draw.integers(6, 12),
    step=draw.integers(0, 30),
    ending=draw.sampled_from(["preempted", "failed", "killed", "zombie", "no row"]),
    after=draw.integers(0, 10),
    ranks=draw.integers(1, 3),
)


def write(attempts: list[StoredAttempt]) -> tuple[Run, float, float]:
    """Write a run as its attempts would have; returns it with its start and end."""
    store = MemoryStore()
    story = Story(store, "tale")
    at, first, lost_at = 1000.0, math.inf, None
    for index, each in enumerate(attempts):
        launched = at + each.idle
        claimed = launched + each.startup
        story.claim(claimed, lost_at)
        until = claimed + each.step
        if each.ending != "no row":
            started = launched - each.queue
            first = min(first, launched if index else started)
            rows = [
                LedgerRow(attempt=story.attempt, rank=rank, started=started, until=until, tokens=0, phases=phases)
                for rank in range(each.ranks)
                for phases in [{"queue": each.queue, "startup": each.startup, "step": each.step}]
            ]
            text = "".join(row.model_dump_json() + "\n" for row in rows)
            store.put(keys.ledger("tale", story.attempt), [text.encode()])
        else:
            first = min(first, claimed)
        at, lost_at = until + each.after, None
        if each.ending in {"preempted", "failed"}:
            story.end(at, each.ending, 0)
        elif each.ending == "zombie":
            at = lost_at = claimed  # time of its last heartbeat
        else:
            lost_at = at
    ended = max(at, until) if attempts[-1].ending in {"preempted", "failed"} else max(claimed, until)
    if attempts[-1].ending == "no row":
        ended = claimed
    return Run(store, "tale"), first, ended


@given(draw.lists(STORED_ATTEMPT, min_size=1, max_size=6))
def test_every_history_adds_up(attempts: list[StoredAttempt]) -> None:
    """Whether attempts are preempted, failed, killed with or without a ledger, or fenced while alive."""
    run, first, last = write(attempts)
    accounting = account_time(run)
    wall = wall_time(accounting)
    assert wall.sum == pytest.approx(wall.elapsed, rel=1e-9, abs=1e-6)
    assert wall.elapsed == pytest.approx(last - first, abs=1e-6)
    for each in accounting.rank_times:
        assert each.difference == pytest.approx(0, abs=1e-6)
        assert min(each.phases.values()) >= 0
    free = -math.inf
    for number in sorted({each.attempt for each in accounting.rank_times}):
        own = [each for each in accounting.rank_times if each.attempt == number]
        assert all(not each.phases["queue"] or each.started >= free for each in own), "queued beside another attempt"
        free = max([free, *(min(each.ended, each.fenced_at) for each in own)])
        assert all(each.phases["lost"] >= each.ended - max(each.fenced_at, each.started) for each in own)
