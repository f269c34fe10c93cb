"""How the package is built: one name for each thing, no circles of imports, one tree of errors, short functions."""

import ast
import builtins
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from functools import cache

from tests.contract.source import MODULES, Module, report

KINDS = re.compile(r"([A-Za-z]*[Aa]dam[Ww]|ADAMW|exp_avg\w*|[Ll]lama\w*|LLAMA|Decoder\w*|kv_heads|ffn_width)")
"""Names of the built-in optimizer and architecture, and of what only they have."""
OF_KINDS = {
    "recipe/__init__.py": "exports the keys",
    "recipe/optimizer_settings.py": "the keys of optimizers",
    "recipe/model_settings.py": "the keys of architectures",
    "recipe/schema.py": "the default optimizer",
    "train/compute/optimizer.py": "the optimizer and the table of optimizers",
    "model/__init__.py": "the table of architectures",
    "model/llama/*": "the architecture",
}
"""Modules that may name a kind, and what they hold."""
REPEATS: dict[str, str] = {}
"""Module names that may occur more than once, and why. Commands need none: `cli/NAME.py` is named by its command."""
OUTSIDE = {
    "ApiError": "the response to a client: it has a status instead of an exit code, and never leaves the request"
}
"""Exceptions that may stand outside the tree, and why: no command and no other process ever sees them."""
LONGEST_MODULE = 300
LONGEST_FUNCTION = 60
USUAL_FUNCTION = 21
"""Lines that nine functions of ten do not exceed."""


def test_no_two_classes_have_one_name() -> None:
    """A class name means one class in the whole package; a leading underscore makes no other name."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        for each in module.classes:
            places[each.name.lstrip("_")].append(f"{module.at(each)} {each.name}")
    violations = repeated(places)
    assert not violations, report("class names are unique", violations)


def test_no_two_modules_have_one_name() -> None:
    """A module name means one module in the whole package, but for commands and the repeats that are listed."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        if module.path.stem not in {"__init__", "__main__"} and module.path.parent.name != "cli":
            places[module.path.stem].append(module.name)
    violations = repeated({name: files for name, files in places.items() if name not in REPEATS})
    violations += [f"{name} is listed, but occurs once" for name in REPEATS if len(places[name]) < 2]
    assert not violations, report("module names are unique", violations)


def test_no_imports_form_a_circle() -> None:
    """No modules import each other, directly or through others, late and typing-only imports included."""
    violations = [" - ".join(circle) for circle in circles({module.name: imports(module) for module in MODULES})]
    assert not violations, report("imports form no circle", violations)


def test_only_its_own_modules_name_an_optimizer_or_an_architecture() -> None:
    """Loop, step, state, saver, export and all other modules reach them through one object, and name none."""
    violations = [
        f"{module.name}:{node.lineno} {name}"
        for module in MODULES
        if not any(fnmatch(module.name, pattern) for pattern in OF_KINDS)
        for node, name in mentions(module)
        if any(KINDS.fullmatch(part) for part in name.split("."))
    ]
    assert not violations, report("optimizers and architectures are known through their seam", violations)
    for pattern in OF_KINDS:
        modules = [module for module in MODULES if fnmatch(module.name, pattern)]
        names = [part for module in modules for _, name in mentions(module) for part in name.split(".")]
        assert any(KINDS.fullmatch(name) for name in names), f"{pattern} is listed, but names none"


def test_every_error_is_of_one_tree() -> None:
    """Every exception class descends from the root in `errors.py`, but for those that are listed."""
    root = root_error()
    known = error_ancestors()
    violations = [
        f"{module.at(each)} {each.name}"
        for module in MODULES
        for each in module.classes
        if is_error(known[each.name]) and root not in {each.name, *known[each.name]} and each.name not in OUTSIDE
    ]
    violations += [f"{name} is listed, but there is no such class" for name in OUTSIDE if name not in known]
    assert not violations, report(f"every error descends from {root}", violations)


def test_the_tree_of_errors_is_drawn_whole() -> None:
    """Whatever descends from the root stands in `errors.py`, where one finds it by name, and in the drawing there."""
    root, known = root_error(), error_ancestors()
    drawing = ast.get_docstring(ast.parse(errors_module().text)) or ""
    violations = []
    for module in MODULES:
        for each in module.classes:
            if root in {each.name, *known[each.name]} and module is not errors_module():
                violations.append(f"{module.at(each)} {each.name} is defined outside errors.py")
            elif module is errors_module() and not re.search(rf"\b{each.name}\b", drawing):
                violations.append(f"{module.at(each)} {each.name} is not in the drawing")
    assert not violations, report("errors.py holds and draws the whole tree", violations)


def test_no_library_is_let_run_the_code_of_a_model() -> None:
    """Whatever loads from a model's folder says so: left out, transformers asks a terminal, and vLLM may change."""
    violations = [
        f"{module.name}:{node.lineno} {node.func.attr}"
        for module in MODULES
        for node in module.nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"from_pretrained", "from_config"}
        and not any(word.arg == "trust_remote_code" and ast.unparse(word.value) == "False" for word in node.keywords)
    ]
    assert not violations, report("loaders of models have trust_remote_code=False", violations)


def test_modules_and_functions_are_short() -> None:
    """No module and no function is long, and nine functions of ten fit on half a screen."""
    lengths = function_lengths()
    usual = statistics.quantiles(lengths.values(), n=10)[-1]
    violations = [
        f"{module.name} has {lines} lines"
        for module in MODULES
        if (lines := len(module.text.splitlines())) > LONGEST_MODULE
    ]
    violations += [f"{place} has {lines} lines" for place, lines in lengths.items() if lines > LONGEST_FUNCTION]
    violations += [f"the 90th percentile of functions is {usual} lines"] if usual > USUAL_FUNCTION else []
    assert not violations, report("modules and functions are short", violations)


def mentions(module: Module) -> Iterator[tuple[ast.expr | ast.alias, str]]:
    """Every name, attribute, import and string without a space in a module."""
    for node in module.nodes:
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                yield node, name
            case ast.Constant(value=str(text)) if " " not in text:
                yield node, text


def repeated(places: Mapping[str, list[str]]) -> list[str]:
    """The names that stand in several places, and where."""
    return [f"{name}: {', '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]


def function_lengths() -> dict[str, int]:
    """The lines of every function, by its place and name; its decorators are not counted."""
    return {
        f"{module.at(each)} {each.name}": (each.end_lineno or 0) - each.lineno + 1
        for module in MODULES
        for each in module.functions
    }


def imports(module: Module) -> set[str]:
    """The files of the package that a module imports anywhere.

    `from headway.a.b import c` leads to `a/b`. The packages that Python passes on the way there do not count, or every
    module would import itself; a package counts when a name is taken from it that is not one of its modules.
    """
    files = {each.dotted: each.name for each in MODULES}
    found = set()
    for node in module.nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = origin_of(node, module)
            members = {f"{origin}.{alias.name}" for alias in node.names}
            found |= members if members <= files.keys() else {origin, *members}
    return {files[name] for name in found if name in files} - {module.name}


def origin_of(node: ast.ImportFrom, module: Module) -> str:
    """The dotted name of the module from which names are imported."""
    if not node.level:
        return node.module or ""
    package = module.dotted.split(".")
    up = node.level - (module.path.stem == "__init__")
    return ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The sets of files that all lead to each other (strongly connected components of more than one file)."""
    reached = {file: reachable(graph, file) for file in graph}
    found = {
        tuple(sorted(other for other in reached[file] if file in reached[other]))
        for file in graph
        if file in reached[file]
    }
    return [list(circle) for circle in sorted(found)]


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Every file to which imports lead from `start`; itself, if they lead back."""
    found: set[str] = set()
    waiting = [*graph[start]]
    while waiting:
        if (file := waiting.pop()) not in found:
            found.add(file)
            waiting += graph[file]
    return found


def errors_module() -> Module:
    """The module that holds the tree."""
    return next(module for module in MODULES if module.name == "errors.py")


def root_error() -> str:
    """The one class in `errors.py` that is an Exception by itself."""
    roots = [each.name for each in errors_module().classes if {ast.unparse(base) for base in each.bases} & BUILT_IN]
    assert len(roots) == 1, f"errors.py has {len(roots)} roots: {roots}"
    return roots[0]


BUILT_IN = {
    name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
}


@cache
def error_ancestors() -> dict[str, set[str]]:
    """The names of all ancestors of each class, of the package and of others; classes of one name share theirs."""
    parents: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for each in module.classes:
            parents[each.name] |= {ast.unparse(base).rpartition(".")[-1] for base in each.bases}
    return {name: reachable(parents_of_all(parents), name) for name in parents}


def parents_of_all(parents: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same with an entry for each ancestor, so that one can walk on from all of them."""
    return {name: set() for found in parents.values() for name in found} | dict(parents)


def is_error(ancestors: Iterable[str]) -> bool:
    """Whether a class with these ancestors is an exception, of Python's or of a library's."""
    return any(name in BUILT_IN or re.search(r"(Error|Exception|Exit)$", name) for name in ancestors)
