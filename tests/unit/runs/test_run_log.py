"""A log is a row of objects that grow; whoever follows it sees each line once."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.memory import MemoryStore

from headway.errors import StoreError
from headway.objectstore import Buffer
from headway.runs import keys, run_log
from headway.runs.run_log import LOG_START, LogPosition, LogWriter, read_events


class FailingStore(MemoryStore):
    """A store that fails, with nothing written or with all of it, as a network may."""

    failing = ""

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write, unless it fails before; and fail after, if it is to."""
        if self.failing == "before":
            raise StoreError("no answer")
        super().put(key, parts)
        if self.failing == "after":
            raise StoreError("no answer")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a hundred bytes: some five lines."""
    monkeypatch.setattr(run_log, "CHUNK_BYTES", 100)


def line(number: int) -> str:
    """A line of 20 bytes with its end."""
    return json.dumps({"number": f"{number:05}"})[:-1] + "}"


def numbers(store: MemoryStore, after: LogPosition = LOG_START) -> list[int]:
    """The numbers of the lines after a place."""
    return [int(event["number"]) for _, event in read_events(store, "run", after)]


def test_a_chunk_grows_until_it_is_long_and_then_the_next_begins() -> None:
    """Short flushes fill one object; a full one is never written again; no line is split or said twice."""
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


def test_nothing_new_writes_nothing() -> None:
    """A flush without a line since the last is no request."""
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
    """What could not be written, or was written without an answer, is there after the next flush, once."""
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
def test_whoever_follows_sees_each_line_once(turns: list[tuple[int, bool, bool]]) -> None:
    """Lines come in bursts, attempts follow one another, one looks now and then: each line once, in order."""
    store = MemoryStore()
    attempt, said, place = 1, 0, LOG_START
    writer = LogWriter(store, "run", attempt)
    seen: list[int] = []
    for burst, looks, begins in [*turns, (1, True, False)]:
        if begins:
            attempt += 1
            writer = LogWriter(store, "run", attempt)
        for _ in range(burst):
            writer.add(line(said))
            said += 1
        writer.flush()
        for at, event in read_events(store, "run", place) if looks else ():
            place = at
            seen.append(int(event["number"]))
    assert seen == [*range(said)]


def test_a_look_may_break_off_anywhere() -> None:
    """From the place of any line on come exactly the lines after it."""
    store = MemoryStore()
    writer = LogWriter(store, "run", 1)
    for number in range(13):
        writer.add(line(number))
        if number % 3 == 0:
            writer.flush()
    places = [place for place, _ in read_events(store, "run")]
    assert len(places) == 13
    for number, place in enumerate(places):
        assert numbers(store, place) == [*range(number + 1, 13)]


def test_a_line_that_is_no_event_is_passed_over() -> None:
    """Rubbish among the lines hides none of the others, and they keep their places."""
    store = MemoryStore()
    store.put(keys.log_chunk("run", 1, 0), [f"{line(0)}\n\xff{{\n7\n\n{line(1)}\n".encode("latin-1")])
    assert [(place[1], event["number"]) for place, event in read_events(store, "run")] == [(1, "00000"), (5, "00001")]
