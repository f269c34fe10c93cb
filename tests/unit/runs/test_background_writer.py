"""What a run costs while it is alive, and what a fenced attempt still publishes."""

import threading
from collections import Counter
from collections.abc import Iterable

import pytest
from tests.memory import MemoryStore

from headway.errors import StoreError
from headway.objectstore import Buffer
from headway.recipe.schema import Machine
from headway.runs import Heartbeat, Holder, keys, read_heartbeat, run_log, write_heartbeat
from headway.runs.background_writer import CHECK_BEATS, LOG_BEATS, BackgroundWriter
from headway.runs.run_log import LogWriter, read_records

DAY_SECONDS = 86_400
REQUESTS_A_DAY = 15_000
EVERY = Machine().heartbeat_seconds


class CountingStore(MemoryStore):
    """Counts requests, and fails on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self.failing = False

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object."""
        self._count("put", key)
        super().put(key, parts)

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object."""
        self._count("get", key)
        return super().get(key, start, length)

    def _count(self, method: str, key: str) -> None:
        self.requests[f"{method} {'log' if key.startswith(keys.log('run')) else 'heartbeat'}"] += 1
        if self.failing:
            raise StoreError("no answer")


def heartbeat(attempt: int) -> Heartbeat:
    """A heartbeat of one attempt."""
    holder = Holder(host="here", pid=1, started=1, launch="x")
    return Heartbeat(attempt=attempt, holder=holder, phase="step", tokens=0, time=0.0, every=EVERY)


def publisher(store: MemoryStore, attempt: int = 1) -> BackgroundWriter:
    """The publisher of one attempt, whose thread is not started."""
    return BackgroundWriter(LogWriter(store, "run", attempt), lambda: heartbeat(attempt), EVERY, on_error=print)


def until(publishing: BackgroundWriter, end: float, *, step_seconds: float = 1.0) -> None:
    """Let time pass up to `end`, as the thread would, while a step is logged every `step_seconds`."""
    now, step = 0.0, 0.0
    while now < end:
        while step <= now:
            publishing.log.add(f'{{"event": "step.done", "at": {step}}}')
            step += step_seconds
        publishing.tick(now)
        assert publishing.due() > now
        now = publishing.due()


@pytest.mark.parametrize("step_seconds", [1.0, 7.0, 100.0])
def test_a_day_of_training_costs_a_bounded_number_of_requests(step_seconds: float) -> None:
    """Heartbeats, checks and log chunks of a run that steps all day stay below 15,000 requests together."""
    store = CountingStore()
    until(publisher(store), DAY_SECONDS, step_seconds=step_seconds)
    beats = DAY_SECONDS / EVERY
    assert store.requests["put heartbeat"] == beats
    assert store.requests["get heartbeat"] == beats / CHECK_BEATS
    assert 0 < store.requests["put log"] <= beats / LOG_BEATS + 1
    assert store.requests.total() <= REQUESTS_A_DAY


def test_a_run_that_says_nothing_writes_no_log() -> None:
    """A chunk without a new line is not written again."""
    store = CountingStore()
    publishing = publisher(store)
    publishing.log.add("{}")
    for beat in range(100):
        publishing.tick(beat * EVERY)
    assert store.requests["put log"] == 1


def test_an_urgent_line_does_not_wait_for_the_next_flush() -> None:
    """It is published at once if the log was not written lately, else within a heartbeat; a plain line waits longer."""
    store = CountingStore()
    publishing = publisher(store)
    publishing.tick(0.0)
    publishing.log.add('{"event": "attempt.claimed"}')
    publishing.notify()
    publishing.tick(0.1)
    assert len([*read_records(store, "run")]) == 1
    publishing.log.add('{"event": "step.done"}')
    publishing.tick(EVERY)
    assert len([*read_records(store, "run")]) == 1
    publishing.log.add('{"event": "checkpoint.committed"}')
    publishing.notify()
    assert publishing.due() <= 0.1 + EVERY
    publishing.tick(publishing.due())
    assert len([*read_records(store, "run")]) == 3


def test_a_failed_request_is_made_again() -> None:
    """Heartbeat and log are written once the store answers again."""
    store = CountingStore()
    publishing = publisher(store)
    publishing.log.add('{"event": "step.done"}')
    store.failing = True
    for _ in range(2):  # the log, then the heartbeat
        with pytest.raises(StoreError):
            publishing.tick(0.0)
    store.failing = False
    while (now := publishing.due()) <= LOG_BEATS * EVERY:
        publishing.tick(now)
    assert read_heartbeat(store, "run")
    assert len([*read_records(store, "run")]) == 1


def test_a_fenced_attempt_falls_silent() -> None:
    """Once it has seen the heartbeat of a newer attempt, which a check after some beats does, it writes none."""
    store = CountingStore()
    old = publisher(store)
    for beat in range(2 * CHECK_BEATS):
        if beat == CHECK_BEATS // 2:
            write_heartbeat(store, "run", heartbeat(2))
        old.tick(beat * EVERY)
        if beat == CHECK_BEATS - 1:
            write_heartbeat(store, "run", heartbeat(2))
    newest = read_heartbeat(store, "run")
    assert newest is not None
    assert newest.attempt == 2


def test_an_attempt_that_wakes_up_checks_before_it_writes() -> None:
    """After a pause in which the run may have been taken over, the first heartbeat is read, not written over."""
    store = CountingStore()
    old = publisher(store)
    old.tick(0.0)
    write_heartbeat(store, "run", heartbeat(2))
    old.tick(3 * EVERY)
    newest = read_heartbeat(store, "run")
    assert newest is not None
    assert newest.attempt == 2


def test_the_end_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing writes the rest of the log and then a last heartbeat, and ends the thread."""
    monkeypatch.setattr(run_log, "CHUNK_BYTES", 100)
    store = CountingStore()
    publishing = publisher(store)
    publishing.start()
    publishing.log.add('{"event": "attempt.ended"}')
    publishing.close()
    assert [event["event"] for _, event in read_records(store, "run")] == ["attempt.ended"]
    assert read_heartbeat(store, "run")
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())
