"""Generates `docs/events.md` from `headway.events`: `make docs`, or `python -m tests.contract.event_page`."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tests.contract.source import MODULES, Module

PAGE = Path(__file__).parents[2] / "docs/events.md"
SECTIONS = {
    "Training": "events/training_events.py",
    "Jobs": "events/job_events.py",
    "Serving": "events/serving_events.py",
}
TYPES = {
    "int": "integer",
    "float": "number",
    "float | None": "number or null",
    "str": "string",
    "str | None": "string or null",
    "Sequence[str]": "strings",
    "Mapping[str, float]": "numbers",
}
"""How JSON calls the types of fields."""
HEAD = """\
<!-- Generated from platform/headway/events by `make docs`. -->
# Events

A line of a log is a JSON object with `event`, `level`, `timestamp` and the fields below. `headway logs RUN --json`
prints the lines of a run. Metrics and spans follow the same events: [telemetry.md](telemetry.md).
"""


def page() -> str:
    """The text of the page."""
    emitters = calls()
    modules = {module.name: module for module in MODULES}
    return "\n".join([HEAD, *(section(title, modules[name], emitters) for title, name in SECTIONS.items())])


def section(title: str, module: Module, emitters: dict[str, set[str]]) -> str:
    """The events of one module: first those that the log shows, then the others."""
    introduction = (ast.get_docstring(ast.parse(module.text)) or "").partition("\n\n")[2]
    events = [(shown_name(each), each) for each in module.classes]
    logged = [entry(name, level(each), each, emitters[each.name]) for name, each in events if name]
    others = [entry(each.name, None, each, emitters[each.name]) for name, each in events if not name]
    return "\n".join([f"## {title}\n{introduction}\n", *logged, *others])


def entry(title: str, logged_as: str | None, event: ast.ClassDef, emitters: set[str]) -> str:
    """One event: its meaning, its level unless the log does not show it, its emitters and its fields."""
    logged = f"Level `{logged_as}`" if logged_as else "Not logged"
    places = ", ".join(f"`{place}`" for place in sorted(emitters))
    lines = [f"### `{title}`", f"{ast.get_docstring(event)}", f"{logged}, emitted by {places}.", ""]
    if rows := [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in fields(event)]:
        lines += ["| field | type | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def shown_name(event: ast.ClassDef) -> str | None:
    """The name of an event in the log; None if the log does not show it."""
    names = [ast.literal_eval(call.args[0]) for call in decorator_calls(event) if ast.unparse(call.func) == "event"]
    return names[0] if names else None


def level(event: ast.ClassDef) -> str:
    """The level of an event, `info` unless it says otherwise."""
    keywords = [keyword for call in decorator_calls(event) for keyword in call.keywords]
    return next((ast.literal_eval(each.value) for each in keywords if each.arg == "level"), "info")


def decorator_calls(event: ast.ClassDef) -> list[ast.Call]:
    """The decorators of a class that have arguments."""
    return [each for each in event.decorator_list if isinstance(each, ast.Call)]


def fields(event: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field that has a meaning, which is the string after it."""
    for field, after in pairwise(event.body):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, json_type(field.annotation), " ".join(text.split())


def json_type(annotation: ast.expr) -> str:
    """The type of a field in words."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        return " \\| ".join(f"`{value}`" for value in ast.literal_eval(annotation.slice))
    return TYPES[ast.unparse(annotation)]


def calls() -> dict[str, set[str]]:
    """The modules that build an instance of a class, by the name of the class."""
    places: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for node in module.nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                places[node.func.id if isinstance(node.func, ast.Name) else node.func.attr].add(module.name)
    return places


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
