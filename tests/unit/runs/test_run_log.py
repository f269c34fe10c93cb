"""A log is a sequence of growing objects; a reader that follows it gets each line once."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.memory import MemoryStore

from headway.errors import StoreError
from headway.objectstore import Buffer
from headway.runs import keys, run_log
from headway.runs.run_log import LOG_START, LogPosition, LogWriter, read_records


class FailingStore(MemoryStore):
    """A store whose writes fail before or after they take effect, as on a network."""

    failing = ""

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object; fail before or after."""
        if self.failing == "before":
            raise StoreError("no answer")
        super().put(key, parts)
        if self.failing == "after":
            raise StoreError("no answer")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 100 bytes, about five lines."""
    monkeypatch.setattr(run_log, "CHUNK_BYTES", 100)


def line(number: int) -> str:
    """A line of 20 bytes, newline included."""
    return json.dumps({"number": f"{number:05}"})[:-1] + "}"


def numbers(store: MemoryStore, after: LogPosition = LOG_START) -> list[int]:
    """Numbers of the lines after a position."""
    return [int(event["number"]) for _, event in read_records(store, "run", after)]


def test_a_chunk_grows_until_it_is_complete() -> None:
    """Flushes extend one object; a complete one is never rewritten; no line is split or repeated."""
    store = MemoryStore()
    writer = LogWriter(store, "run", 1)
    seen: list[dict[str, bytes]] = []
    for number in range(12):
        writer.add(line(number))
        writer.flush()
        seen.append(dict(store.objects))
    chunks = [keys.log_chunk("run", 1, number) for number in range(3)]
    assert [*store.list(keys.log("run"))] == chunks
    full = [key for key in chunks if len(store.objects[key]) >= run_log.CHUNK_BYTES]
    assert full == chunks[:2]
    assert [len(store.objects[key].splitlines()) for key in chunks] == [5, 5, 2]
    assert all(each[key] == store.objects[key] for each in seen[5:] for key in chunks[:1])
    assert numbers(store) == [*range(12)]


def test_a_flush_without_new_lines_writes_nothing() -> None:
    """It sends no request."""
    store = FailingStore()
    writer = LogWriter(store, "run", 1)
    writer.flush()
    writer.add(line(0))
    writer.flush()
    store.failing = "before"
    writer.flush()
    assert numbers(store) == [0]


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_failed_flush_loses_no_line(how: str) -> None:
    """Lines of a failed flush are stored once by the next."""
    store = FailingStore()
    writer = LogWriter(store, "run", 1)
    for number in range(4):
        writer.add(line(number))
    writer.flush()
    store.failing = how
    for number in range(4, 13):
        writer.add(line(number))
        with pytest.raises(StoreError):
            writer.flush()
    store.failing = ""
    writer.flush()
    writer.add(line(13))
    writer.flush()
    assert numbers(store) == [*range(14)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), max_size=20))
def test_a_follower_gets_each_line_once(turns: list[tuple[int, bool, bool]]) -> None:
    """In order, whatever the bursts of lines, the number of attempts and the times of reading."""
    store = MemoryStore()
    attempt, total, position = 1, 0, LOG_START
    writer = LogWriter(store, "run", attempt)
    seen: list[int] = []
    for burst, reads, begins in [*turns, (1, True, False)]:
        if begins:
            attempt += 1
            writer = LogWriter(store, "run", attempt)
        for _ in range(burst):
            writer.add(line(total))
            total += 1
        writer.flush()
        for at, event in read_records(store, "run", position) if reads else ():
            position = at
            seen.append(int(event["number"]))
    assert seen == [*range(total)]


def test_reading_resumes_after_any_line() -> None:
    """Reading from a line's position returns exactly the lines after it."""
    store = MemoryStore()
    writer = LogWriter(store, "run", 1)
    for number in range(13):
        writer.add(line(number))
        if number % 3 == 0:
            writer.flush()
    positions = [position for position, _ in read_records(store, "run")]
    assert len(positions) == 13
    for number, position in enumerate(positions):
        assert numbers(store, position) == [*range(number + 1, 13)]


def test_lines_that_are_no_events_are_skipped() -> None:
    """Unreadable lines do not change the positions of the others."""
    store = MemoryStore()
    store.put(keys.log_chunk("run", 1, 0), [f"{line(0)}\n\xff{{\n7\n\n{line(1)}\n".encode("latin-1")])
    assert [(position[1], event["number"]) for position, event in read_records(store, "run")] == [
        (1, "00000"),
        (5, "00001"),
    ]
