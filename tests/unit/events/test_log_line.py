"""Every event goes into a log and comes back; what others wrote into a log is read without harm."""

import dataclasses
import json
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.events.event import LogEvent
from headway.events.log_line import LIMIT, LOG_EVENTS, LogLine
from headway.events.training_events import AttemptStarted, CheckpointCommitted, RankSlow, StepDone
from headway.telemetry import open_log

ENVELOPE: Mapping[str, Any] = {"run": "tale", "attempt": 3, "rank": 0, "phase": "step", "tokens": 512}
STEP: Mapping[str, Any] = {
    **ENVELOPE,
    "event": "step.done",
    "level": "info",
    "timestamp": "2026-11-26T21:35:22.513859Z",
    "loss": 2.5,
    "norm": 1.0,
    "learning_rate": 1e-3,
    "tokens_per_second": 500.0,
}
"""The line of a step."""
SAMPLES: Mapping[Any, Any] = {int: 7, float: 1.5, str: "text", type(None): None}


def sample(kind: Any) -> Any:
    """A value of the type of a field."""
    if get_origin(kind) in {Literal, UnionType}:
        return sample(get_args(kind)[0]) if get_origin(kind) is UnionType else get_args(kind)[0]
    if origin := get_origin(kind):
        return {"one": 1.0, "two": 2.0} if origin.__name__ == "Mapping" else ["a", "b"]
    return SAMPLES[kind]


def example(kind: Any) -> LogEvent:
    """An event of a kind."""
    event: LogEvent = kind(**{field.name: sample(field.type) for field in dataclasses.fields(kind)})
    return event


def written(event: LogEvent, **envelope: Any) -> dict[str, Any]:
    """The line of an event as JSON has it."""
    lines = list[str]()
    open_log(lines.append, quiet=True).write(event, **envelope)
    record: dict[str, Any] = json.loads(lines[0])
    return record


@pytest.mark.parametrize("name", LOG_EVENTS)
def test_an_event_comes_back_from_the_log(name: str) -> None:
    """Whatever is written as a line is read as the same event, with who wrote it and when."""
    event = example(LOG_EVENTS[name])
    record = written(event, **ENVELOPE)
    assert (record["event"], record["level"]) == (name, event.level)
    line = LogLine.parse(record)
    assert line
    assert line.event == event
    assert type(line.event) is LOG_EVENTS[name]
    assert line.envelope.attempt == 3
    assert line.time == pytest.approx(line.envelope.timestamp.timestamp())


def test_a_line_shows_the_stages_of_a_startup_as_fields() -> None:
    """They are not nested, and come before their total."""
    record = written(AttemptStarted(stages={"launch": 0.5, "imports": 2.0}, total=2.5), tokens=512)
    shown = {key: value for key, value in record.items() if key not in {"event", "level", "timestamp"}}
    assert list(shown.items()) == [("tokens", 512), ("launch", 0.5), ("imports", 2.0), ("total", 2.5)]


def test_a_slow_rank_takes_the_place_of_the_writer() -> None:
    """The line says rank and phase of the slow rank, where other lines say those of rank 0."""
    record = written(RankSlow(rank=5, host="far", factor=2.0, cost=1.5, phase="data"), **ENVELOPE)
    assert (record["rank"], record["phase"], record["tokens"]) == (5, "data", 512)


def test_lines_of_jobs_and_services_need_no_attempt() -> None:
    """What a line does not say is None."""
    record = {key: value for key, value in STEP.items() if key not in ENVELOPE}
    line = LogLine.parse(record)
    assert line
    assert (line.envelope.attempt, line.envelope.tokens) == (None, None)


def test_what_a_newer_version_adds_is_ignored() -> None:
    """An unknown field does not matter, an unknown event is no line."""
    line = LogLine.parse({**STEP, "entropy": [1, {"x": None}]})
    assert line
    assert line.event == StepDone(loss=2.5, norm=1.0, learning_rate=1e-3, tokens_per_second=500.0)
    assert LogLine.parse({**STEP, "event": "step.repeated"}) is None


def test_numbers_that_are_not_finite_come_back() -> None:
    """A loss may be NaN or infinite; JSON's readers and writers here agree on how."""
    done = StepDone(loss=math.nan, norm=math.inf, learning_rate=0.0, tokens_per_second=-math.inf)
    line = LogLine.parse(written(done, tokens=1))
    assert line
    assert isinstance(line.event, StepDone)
    assert math.isnan(line.event.loss)
    assert (line.event.norm, line.event.tokens_per_second) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "2.5"}, {"loss": True}, {"loss": None}, {"loss": [2.5]}, {"loss": 10**400}, {"tokens": LIMIT},
        {"tokens": -LIMIT}, {"tokens": "512"}, {"tokens": 512.0}, {"tokens": False}, {"attempt": {}}, {"rank": "0"},
        {"phase": 3}, {"timestamp": None}, {"timestamp": "yesterday"}, {"timestamp": "2026-11-26T21:35:22"},
        {"timestamp": 10**18}, {"timestamp": math.nan}, {"event": ["step.done"]}, {"event": None}, {"new": 10**4000},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_no_line(changes: Mapping[str, Any]) -> None:
    """A field of another type, a number out of bounds or a time without a zone is left out; nothing is raised."""
    assert LogLine.parse({**STEP, **changes}) is None


@pytest.mark.parametrize("missing", ["event", "timestamp", "loss", "norm", "learning_rate", "tokens_per_second"])
def test_a_line_without_a_field_is_no_line(missing: str) -> None:
    """What an event cannot do without has to be there."""
    assert LogLine.parse({key: value for key, value in STEP.items() if key != missing}) is None


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = sorted({*STEP, "total", "stages", "action", "at", "exclude", "host"})


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(LOG_EVENTS)), st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_no_line_makes_the_reader_fail(name: str, changes: dict[str, Any]) -> None:
    """Whoever wrote it: it is an event of the right types, or none."""
    event = example(LOG_EVENTS[name])
    record = {**STEP, **event.fields(), "event": name, **changes}
    line = LogLine.parse(record)
    if line:
        kind: Any = type(line.event)
        assert all(fits(getattr(line.event, field.name), field.type) for field in dataclasses.fields(kind))
        assert isinstance(line.time, float)


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the type of a field."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return value in arguments
    if get_origin(kind) is UnionType:
        return any(fits(value, each) for each in arguments)
    if arguments:
        items = [*value.items()] if isinstance(value, dict) else [(each,) for each in value]
        return all(fits(part, each) for item in items for part, each in zip(item, arguments, strict=True))
    return type(value) is kind and (kind is not int or abs(value) < LIMIT)


def test_an_event_cannot_be_changed() -> None:
    """Sinks that share it cannot disturb each other."""
    event: Any = CheckpointCommitted(at=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.at = 2
    with pytest.raises(TypeError):
        CheckpointCommitted(1)  # type: ignore[call-arg]  # fields are named
