"""Events are what `headway.events` declares: no name stands elsewhere, and the type checker knows who misses one."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.contract import event_page
from tests.contract.source import MODULES, PACKAGE, Module, report

from headway.events.log_line import KINDS, LOG_EVENTS

ROOT = PACKAGE.parents[1]
EVENTS = PACKAGE / "events"
TRAINING = EVENTS / "training_events.py"
LOG_METHODS = {"debug", "info", "warning", "error", "critical", "exception", "write", "emit"}
EVENT_NAME = re.compile(r"[a-z_]+(\.[a-z_]+)+")


def test_names_of_events_stand_only_where_they_are_declared() -> None:
    """No module but those of `events` writes the name of an event, or logs anything that looks like one."""
    assert len(LOG_EVENTS) > 30
    violations = [
        f"{module.at(text)} {text.value!r}"
        for module in MODULES
        if module.path.parent != EVENTS
        for text in [*names(module), *logged_texts(module)]
    ]
    assert not violations, report("events are typed", violations)


def test_every_event_belongs_to_a_group() -> None:
    """An event that is declared is in one of the unions that sinks and readers go by, once, under one name."""
    declared = [each.name for module in MODULES if module.path.parent == EVENTS for each in module.classes]
    in_a_group = [kind.__name__ for kind in KINDS]
    assert sorted(in_a_group) == sorted({*declared} - {"LogEvent", "LogLine", "Envelope"})
    logged = [kind for kind in KINDS if kind in LOG_EVENTS.values()]
    assert [kind.name for kind in logged] == [*LOG_EVENTS], "no two events share a name"
    assert all(EVENT_NAME.fullmatch(name) for name in LOG_EVENTS)


def test_the_page_of_events_is_up_to_date() -> None:
    """`docs/events.md` is what `make docs` writes, with every field of every event and somebody who emits it."""
    text = event_page.page()
    assert event_page.PAGE.read_text(encoding="utf-8") == text, "run make docs"
    assert "emitted by ." not in text
    for module in MODULES:
        for each in module.classes if module.path.parent == EVENTS else ():
            kinds = [kind for kind in KINDS if kind.__name__ == each.name]
            for kind in kinds:
                fields = [field.name for field in dataclasses.fields(kind)]
                assert [name for name, *_ in event_page.fields(each)] == fields, f"{each.name}: a field has no text"


def test_a_sink_that_misses_an_event_does_not_pass_the_type_checker(tmp_path: Path) -> None:
    """An event that is added to a group is an error in each sink that treats the events of the group one by one."""
    text = TRAINING.read_text(encoding="utf-8")
    for group in SINKS:
        text = text.replace(
            f"\n{group} = ",
            f'\n@event("new.{group.lower()}")\nclass New{group}(LogEvent): ...\n\n\n{group} = New{group} | ',
        )
    errors = type_errors(tmp_path, text)
    for group, sinks in SINKS.items():
        missed = {error.partition(":")[0] for error in errors if "assert_never" in error and f"New{group}" in error}
        assert missed == {str(sink.relative_to(ROOT)) for sink in sinks}, errors


def test_a_field_that_is_not_there_does_not_pass_the_type_checker(tmp_path: Path) -> None:
    """A field that is renamed is an error where it is read, and where the event is emitted."""
    errors = type_errors(tmp_path, TRAINING.read_text(encoding="utf-8").replace("    loss: float", "    mean: float"))
    places = {Path(error.partition(":")[0]).name for error in errors if "StepDone" in error and '"loss"' in error}
    assert places == {"run_metrics.py", "summary.py", "progress_bar.py", "reporter.py"}, errors


def test_a_misspelt_event_does_not_pass_the_type_checker(tmp_path: Path) -> None:
    """Neither its name, nor its fields, nor a line that is no event."""
    emitter = tmp_path / "emitter.py"
    emitter.write_text(inspect.cleandoc(MISSPELT), encoding="utf-8")
    modules = [PACKAGE / name for name in ("events/event.py", "telemetry/logs.py", "train/sinks/event_bus.py")]
    errors = mypy(tmp_path, "--follow-imports=skip", *map(str, [emitter, TRAINING, *modules]))
    wrong = [
        (int(error.split(":")[1]), error.rpartition("[")[2].rstrip("]")) for error in errors if ": error:" in error
    ]
    assert wrong == [(6, "attr-defined"), (7, "call-arg"), (8, "arg-type"), (9, "arg-type"), (10, "attr-defined")], (
        errors
    )


MISSPELT = """
    from headway.events import training_events as events
    from headway.telemetry.logs import open_log
    from headway.train.sinks.event_bus import EventBus

    bus, log = EventBus(), open_log()
    bus.emit(events.CheckpointStagd())
    bus.emit(events.CheckpointCommitted(att=1))
    bus.emit(events.CheckpointCommitted(at="1"))
    bus.emit(events.HeartbeatFailed(error="logged only"))
    log.info("checkpoint.staged")
    log.write(events.HeartbeatFailed(error="no answer"))
"""
METRICS, SPANS, SUMMARY = (
    PACKAGE / name for name in ("train/sinks/run_metrics.py", "train/sinks/attempt_spans.py", "reports/summary.py")
)
SINKS = {
    "AttemptEvent": [METRICS, SPANS, SUMMARY],
    "BatchEvent": [METRICS, SUMMARY],
    "SaveEvent": [METRICS, SPANS],
    "RestoreEvent": [METRICS],
    "RankEvent": [METRICS, SUMMARY],
}
"""The sinks that treat the events of a group one by one. What is not here treats all of them alike."""


def type_errors(folder: Path, training_events: str) -> list[str]:
    """What mypy says about all sinks if the training events were declared so."""
    changed = folder / "training_events.py"
    changed.write_text(training_events, encoding="utf-8")
    assert training_events != TRAINING.read_text(encoding="utf-8")
    sinks = [str(path) for path in (PACKAGE / "train/sinks").glob("*.py")]
    shadow = ["--shadow-file", str(TRAINING), str(changed), "--follow-imports=skip"]
    return mypy(folder, *shadow, str(EVENTS / "event.py"), str(TRAINING), str(SUMMARY), *sinks)


def mypy(folder: Path, *arguments: str) -> list[str]:
    """The errors that mypy finds."""
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(folder / "cache"), "--no-error-summary", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout.splitlines()


def names(module: Module) -> Iterator[ast.Constant]:
    """The strings that are the name of an event."""
    return (node for node in module.nodes if isinstance(node, ast.Constant) and node.value in LOG_EVENTS)


def logged_texts(module: Module) -> Iterator[ast.Constant]:
    """The strings that look like the name of an event, and are logged."""
    for node in module.nodes:
        match node:
            case ast.Call(func=ast.Attribute(attr=method), args=[ast.Constant(value=str(text)) as first, *_]):
                if method in LOG_METHODS and EVENT_NAME.fullmatch(text):
                    yield first
