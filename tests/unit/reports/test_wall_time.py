"""The columns add up to the wall clock: whatever attempts overlap, however many ranks each had, however each ended."""

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


def line(attempt: int, rank: int, began: float, fenced: float = math.inf, **phases: float) -> RankTime:
    """A rank's time, whose phases follow each other from `began` on."""
    return RankTime(attempt, rank, "killed", began, began + sum(phases.values()), NOTHING | phases, fenced)


@dataclass(frozen=True)
class Told:
    """One attempt of a made-up run. All in whole seconds."""

    gap: int
    """From the end of the attempt before to the submission; negative if they overlap."""
    queue: int
    startup: int
    """Until the claim, by which every rank is there."""
    step: int
    lost: int
    late: list[int]
    """How much later than the first each rank began."""


TOLD = draw.builds(
    Told,
    gap=draw.integers(-30, 30),
    queue=draw.integers(0, 30),
    startup=draw.integers(5, 10),
    step=draw.integers(0, 20),
    lost=draw.integers(0, 20),
    late=draw.lists(draw.integers(0, 5), min_size=1, max_size=4),
)


def lines(tale: list[Told]) -> list[RankTime]:
    """The lines of a made-up run; the start of a later attempt may lie anywhere before its claim."""
    begins: list[int] = []
    at = 100
    for told in tale:
        begins.append(at := max([*begins, at + told.gap]))
        at += told.queue + told.startup + told.step + told.lost
    claims = [begin + told.queue + told.startup for begin, told in zip(begins, tale, strict=True)]
    claims = [max(claims[: index + 1]) for index in range(len(claims))]
    found = []
    for index, (told, begin, fenced) in enumerate(zip(tale, begins, [*claims[1:], math.inf], strict=True)):
        for rank, late in enumerate(told.late):
            phases = {"queue": told.queue, "startup": told.startup, "step": told.step, "lost": told.lost}
            began = begin + (min(late, told.queue) if told.queue else late)
            phases["queue"] -= began - begin if told.queue else 0
            found.append(line(index, rank, began, fenced, **phases))
    return found


def uncovered(found: list[RankTime]) -> float:
    """Seconds when nobody had the run, counted one by one: a rank of n that is missing counts for 1/n."""
    total, moment = 0.0, int(min(each.began for each in found))
    attempts = [[each for each in found if each.attempt == number] for number in sorted({e.attempt for e in found})]
    while remaining := [ranks for ranks in attempts if any(min(e.ended, e.fenced) > moment for e in ranks)]:
        oldest = remaining[0]
        total += sum(not each.began <= moment < min(each.ended, each.fenced) for each in oldest) / len(oldest)
        moment += 1
    return total


@given(draw.lists(TOLD, min_size=1, max_size=6))
def test_the_columns_add_up_to_the_wall_clock(tale: list[Told]) -> None:
    """Phases averaged over ranks and the time between are the elapsed time; nothing is counted twice, or made up."""
    found = lines(tale)
    told = TimeAccounting(found, running=None)
    clock = wall_time(told)
    last = max(max(each.began, min(each.ended, each.fenced)) for each in found)
    assert clock.elapsed == pytest.approx(last - min(each.began for each in found), abs=1e-6)
    assert clock.sum == pytest.approx(clock.elapsed, abs=1e-6)
    assert clock.between == pytest.approx(uncovered(found), abs=1e-6)
    ranks = {each.attempt: sum(other.attempt == each.attempt for other in found) for each in found}
    for phase in PHASES:
        averaged = sum(each.phases[phase] / ranks[each.attempt] for each in found)
        assert -1e-6 <= clock.phases[phase] <= averaged + 1e-6
    assert 0 <= clock.goodput <= 1


def test_without_overlap_each_rank_counts_for_its_share() -> None:
    """Two attempts, of two ranks and of four: their means add up, and what lies between is told apart."""
    first = [line(1, rank, 0, startup=5, step=20) for rank in range(2)]
    second = [line(2, rank, 30, queue=6, startup=4, step=20 + rank, lost=10 - rank) for rank in range(4)]
    clock = wall_time(TimeAccounting([*first, *second], running=None))
    assert clock.between == 5
    assert clock.phases == pytest.approx(NOTHING | {"queue": 6, "startup": 9, "step": 41.5, "lost": 8.5})
    assert clock.elapsed == clock.sum == 70
    assert clock.goodput == pytest.approx(41.5 / 70)


def test_a_start_beside_an_older_attempt_is_the_older_ones_time() -> None:
    """Taken over: until the claim at 30 the older attempt trains, and what it does then is nobody's."""
    older = line(1, 0, 0, fenced=30, startup=5, step=20, lost=12)
    newer = line(2, 0, 22, queue=4, startup=4, step=10)
    clock = wall_time(TimeAccounting([older, newer], running=None))
    assert clock.phases == pytest.approx(NOTHING | {"startup": 5, "step": 30, "lost": 5})
    assert clock.elapsed == clock.sum == 40


def test_a_rank_that_began_late_was_missing_until_then() -> None:
    """Two ranks, one of which was launched four seconds later: for four seconds half of the run was not there."""
    clock = wall_time(TimeAccounting([line(1, 0, 0, step=10), line(1, 1, 4, step=6)], running=None))
    assert (clock.phases["step"], clock.between, clock.elapsed) == (8, 2, 10)


def test_books_that_are_wrong_show_as_a_difference() -> None:
    """Phases that do not account for a line's time are not made to look as if they did."""
    wrong = RankTime(1, 0, "done", 0, 20, NOTHING | {"step": 17.0})
    clock = wall_time(TimeAccounting([wrong], running=None))
    assert (clock.elapsed, clock.sum, clock.difference) == (20, 17, 3)


def test_a_run_without_time_has_no_goodput() -> None:
    """Nothing is divided by the time of a run that has none."""
    clock = wall_time(TimeAccounting([], running=None))
    assert (clock.elapsed, clock.sum, clock.goodput) == (0, 0, 0)


@dataclass(frozen=True)
class Written:
    """One attempt as a run store has it. All in whole seconds."""

    idle: int
    """From the end of the attempt before to this launch; negative if it was started beside it."""
    queue: int
    startup: int
    step: int
    ending: str
    """An outcome, `killed`, or `zombie`: it went on after the next attempt had claimed the run."""
    after: int
    """From the last row to the end."""
    ranks: int


WRITTEN = draw.builds(
    Written,
    idle=draw.integers(-5, 20),
    queue=draw.integers(0, 40),
    startup=draw.integers(6, 12),
    step=draw.integers(0, 30),
    ending=draw.sampled_from(["preempted", "failed", "killed", "zombie", "no row"]),
    after=draw.integers(0, 10),
    ranks=draw.integers(1, 3),
)


def write(tale: list[Written]) -> tuple[Run, float, float]:
    """A run as its attempts would have written it; when it was submitted or launched, and when its last one ended."""
    store = MemoryStore()
    story = Story(store, "tale")
    at, first, lost_at = 1000.0, math.inf, None
    for index, told in enumerate(tale):
        launched = at + told.idle
        claimed = launched + told.startup
        story.claim(claimed, lost_at)
        until = claimed + told.step
        if told.ending != "no row":
            started = launched - told.queue
            first = min(first, launched if index else started)
            rows = [
                LedgerRow(attempt=story.attempt, rank=rank, started=started, until=until, tokens=0, phases=phases)
                for rank in range(told.ranks)
                for phases in [{"queue": told.queue, "startup": told.startup, "step": told.step}]
            ]
            text = "".join(row.model_dump_json() + "\n" for row in rows)
            store.put(keys.ledger("tale", story.attempt), [text.encode()])
        else:
            first = min(first, claimed)
        at, lost_at = until + told.after, None
        if told.ending in {"preempted", "failed"}:
            story.end(at, told.ending, 0)
        elif told.ending == "zombie":
            at = lost_at = claimed  # a heartbeat of then is the last that anybody saw
        else:
            lost_at = at
    ended = max(at, until) if tale[-1].ending in {"preempted", "failed"} else max(claimed, until)
    if tale[-1].ending == "no row":
        ended = claimed
    return Run(store, "tale"), first, ended


@given(draw.lists(WRITTEN, min_size=1, max_size=6))
def test_every_history_adds_up(tale: list[Written]) -> None:
    """Preempted, failed, killed with and without a row, fenced and alive: sums are the time from first to last."""
    run, first, last = write(tale)
    told = account_time(run)
    clock = wall_time(told)
    assert clock.sum == pytest.approx(clock.elapsed, rel=1e-9, abs=1e-6)
    assert clock.elapsed == pytest.approx(last - first, abs=1e-6)
    for each in told.lines:
        assert each.difference == pytest.approx(0, abs=1e-6)
        assert min(each.phases.values()) >= 0
    free = -math.inf
    for number in sorted({each.attempt for each in told.lines}):
        own = [each for each in told.lines if each.attempt == number]
        assert all(not each.phases["queue"] or each.began >= free for each in own), "queued while another had the run"
        free = max([free, *(min(each.ended, each.fenced) for each in own)])
        assert all(each.phases["lost"] >= each.ended - max(each.fenced, each.began) for each in own)
