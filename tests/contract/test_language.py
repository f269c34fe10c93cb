"""The language of the package: the field's words for its things, and sentences that begin with their subject."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from tests.contract.source import MODULES, Function, Module, report

INVERTED = re.compile(r"(Of|As|And|For which|What of)\b", re.IGNORECASE)
"""What no sentence for a reader or a user begins with."""
HELP = {"help", "short_help", "epilog", "description", "documentation", "rich_help_panel"}
"""Keywords whose values people read: typer's, argparse's and Prometheus's."""
FAMILIES = re.compile(r"(Counter|Gauge|Histogram|Summary|Info|Enum|Family)$")
"""Constructors of Prometheus families, whose second value is the HELP text."""
PARTICIPLES = {"told", "found", "asked", "said", "there", "wanted"}
"""They say what happened to a thing, not what it is."""


@dataclass(frozen=True)
class Retired:
    """Words that were replaced, and where they are not to come back. Elsewhere they may mean something else."""

    where: tuple[str, ...]
    """Patterns of paths inside the package."""
    words: str
    kinds: frozenset[str]
    """Some of `module`, `class`, `function`, `name`: a name is a variable, a parameter, an attribute or an alias."""


ANY = frozenset({"module", "class", "function", "name"})
ALL_BUT_FUNCTIONS = ANY - {"function"}
MODULES_AND_CLASSES = frozenset({"module", "class"})
CLASSES = frozenset({"class"})
FUNCTIONS = frozenset({"function"})
NAMES = frozenset({"name"})
EVERYWHERE = ("*",)
STORED = ("store/*", "objectstore/*", "runs/*", "reports/*")
ENGINE = ("engine", "process", "service", "replica")
"""Of `serve`, what starts and runs the engine: a quota settles a charge, in the word of the trade."""
RETIRED = (
    Retired(EVERYWHERE, "standing glance tally meeting nursery shortcut figures instruments pulse", ANY),
    Retired((*STORED, "cli/figure.py", "cli/ledger.py"), "account wall", ANY),
    Retired(STORED, "patience chain", ANY),
    Retired(STORED, "try guard link", CLASSES),
    Retired(EVERYWHERE, "passing_error", CLASSES),
    Retired(("train/*",), "waiting", ANY),
    Retired(("train/*",), "start", MODULES_AND_CLASSES),
    Retired(("train/*",), "word sign pace", CLASSES),
    Retired(("train/*",), "tell hear adjourn bereft attend look_round own_word reach", FUNCTIONS),
    Retired(("train/*", "checkpoint/retention.py", "runs/*"), "reach", NAMES),
    Retired(("serve/*",), "offer soundness access blame transcript observer observed", ANY),
    Retired(("serve/*", "cli/serve.py"), "gate room call endpoint relay", ALL_BUT_FUNCTIONS),
    Retired(("serve/*",), "reader identity answer", MODULES_AND_CLASSES),
    Retired(("serve/*",), "chain", ANY),
    Retired(("serve/*",), "links", FUNCTIONS),
    Retired(("serve/*",), "share roll", CLASSES),
    Retired(("launch/*",), "target refusal rescue", ANY),
    Retired(("launch/*",), "program records verdict", frozenset({"module"})),
    Retired(("launch/*",), "left inside", CLASSES),
    Retired(("checkpoint/*",), "ranks", MODULES_AND_CLASSES),
    Retired(("checkpoint/*",), "stored replica", frozenset({"module"})),
    Retired(("checkpoint/*",), "laid", CLASSES),
    Retired(("checkpoint/*",), "lead tell lay make_true together", FUNCTIONS),
    Retired(("registry/*",), "place", ANY),
    Retired(("registry/*",), "copy", CLASSES),
    Retired(("data/*",), "feed", ANY),
    Retired((*STORED, "data/*", "train/*", *(f"serve/{name}*" for name in ENGINE)), "settle", FUNCTIONS),
    Retired(EVERYWHERE, "hurry", NAMES),
)
"""The left column of the table of names that the refactoring of the language went by."""


@dataclass(frozen=True)
class Name:
    """A name that a module gives to something."""

    place: str
    kind: str
    text: str

    @property
    def word(self) -> str:
        """The name as a word: `_PassingError` is `passing_error`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.text.strip("_")).lower()


def test_retired_words_are_gone() -> None:
    """No module, class, function or variable has a name that was replaced by the field's own word."""
    violations = [
        f"{each.place} {each.kind} {each.text}"
        for module in MODULES
        for each in names(module)
        if not re.fullmatch(r"__\w+__", each.text)
        for retired in RETIRED
        if each.kind in retired.kinds
        and each.word in retired.words.split()
        and any(fnmatch(module.name, pattern) for pattern in retired.where)
    ]
    assert not violations, report("retired words are gone", violations)


def test_no_variable_is_named_by_a_participle() -> None:
    """A variable, parameter, attribute or property says what it is, not that it was told, found or asked for."""
    violations = [
        f"{each.place} {each.text}"
        for module in MODULES
        for each in [*names(module), *properties(module)]
        if each.kind == "name" and each.text.strip("_") in PARTICIPLES
    ]
    assert not violations, report("variables are named by nouns", violations)


def test_sentences_begin_with_their_subject() -> None:
    """No docstring, help of a command or HELP of a metric begins with Of, As, And, For which or What of."""
    violations = [
        f"{module.at(node)} {node.value.splitlines()[0]}"
        for module in MODULES
        for node in sentences(module)
        if isinstance(node.value, str) and INVERTED.match(node.value.lstrip())
    ]
    assert not violations, report("sentences begin with their subject", violations)


def names(module: Module) -> Iterator[Name]:
    """Every name that a module gives, its own included."""
    yield Name(module.name, "module", module.path.parent.name if module.path.stem == "__init__" else module.path.stem)
    for node in module.nodes:
        if isinstance(node, ast.ClassDef):
            yield Name(module.at(node), "class", node.name)
        elif isinstance(node, Function):
            yield Name(module.at(node), "function", node.name)
        elif isinstance(node, ast.arg):
            yield Name(module.at(node), "name", node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield Name(module.at(node), "name", node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield Name(module.at(node), "name", node.attr)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield Name(f"{module.name}:{node.lineno}", "name", node.name)
        elif isinstance(node, ast.alias) and node.asname:
            yield Name(f"{module.name}:{node.lineno}", "name", node.asname)


def properties(module: Module) -> Iterator[Name]:
    """The properties of a module's classes: attributes to whoever reads them."""
    for each in module.functions:
        if any(re.search(r"property$", ast.unparse(decorator)) for decorator in each.decorator_list):
            yield Name(module.at(each), "name", each.name)


def sentences(module: Module) -> Iterator[ast.Constant]:
    """What people read: strings that stand alone (docstrings), help texts, and what telemetry hands to Prometheus."""
    shows = module.name.startswith(("telemetry/", "exporter/"))
    for node in module.nodes:
        if isinstance(node, ast.Expr):
            yield from texts(node.value)
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in HELP:
                    yield from texts(keyword.value)
            if FAMILIES.search(ast.unparse(node.func)) and len(node.args) > 1:
                yield from texts(node.args[1])
            elif shows:
                yield from (text for value in node.args for text in texts(value))
        elif isinstance(node, ast.Tuple) and shows:
            yield from (text for value in node.elts for text in texts(value))


def texts(node: ast.expr) -> Iterator[ast.Constant]:
    """The string that an expression begins with."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node
    elif isinstance(node, ast.JoinedStr) and node.values:
        yield from texts(node.values[0])
    elif isinstance(node, ast.BinOp):
        yield from texts(node.left)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
