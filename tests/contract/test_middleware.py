"""How middleware of `serve` is built: each rule of the way there and back stands in one module."""

import ast
import re
from collections.abc import Iterator

from tests.contract.source import MODULES, report

SERVE = [module for module in MODULES if module.name.startswith("serve/")]
METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"}


def test_only_the_base_tells_kinds_of_connections_apart() -> None:
    """No other module compares `scope["type"]`."""
    violations = [
        module.at(node)
        for module in SERVE
        if module.name != "serve/middleware/http_middleware.py"
        for node in module.nodes
        if isinstance(node, ast.Subscript) and ast.unparse(node) == "scope['type']"
    ]
    assert not violations, report("only the base looks at the type of a scope", violations)


def test_only_the_table_knows_paths_and_methods() -> None:
    """No other module compares with a path or an HTTP method by hand."""
    violations = [
        f"{module.at(node)} {ast.unparse(node)}"
        for module in SERVE
        if module.name != "serve/routes.py"
        for node in module.nodes
        if isinstance(node, ast.Compare | ast.Call)
        for value in compared(node)
        if value in METHODS or value.startswith("/")
    ]
    assert not violations, report("only the table of routes knows paths and methods", violations)


def test_errors_are_rendered_in_one_module() -> None:
    """No other module builds a response."""
    builders = [module.name for module in SERVE if re.search(r"\b(JSON|PlainText|Streaming)?Response\(", module.text)]
    assert builders == ["serve/openai_error.py"], report("only `openai_error` builds responses", builders)


def test_a_response_has_one_wrapper() -> None:
    """All middleware passes on the `send` that it got; what happens on the way back is a hook."""
    violations = [
        f"{module.at(node)} {ast.unparse(node)}"
        for module in SERVE
        if module.name != "serve/middleware/request_id.py"  # it puts `ResponseHooks` there
        for node in module.nodes
        if isinstance(node, ast.Call)
        if passes_on(node) and ast.unparse(node.args[2]) != "send"
    ]
    violations += [
        f"{module.at(each)} {each.name}"
        for module in SERVE
        if module.name != "serve/response_hooks.py"
        for each in module.functions
        if any(argument.annotation and ast.unparse(argument.annotation) == "Message" for argument in each.args.args)
        and any(
            isinstance(node, ast.Call) and ast.unparse(node.func) in {"send", "self._send"} for node in ast.walk(each)
        )
    ]
    assert not violations, report("only `ResponseHooks` wraps `send`", violations)


def test_middleware_is_of_one_base() -> None:
    """Its classes implement `handle` or `check`; only the base is called by servers."""
    violations = [
        f"{module.at(each)} {each.name}"
        for module in SERVE
        if module.name != "serve/middleware/http_middleware.py"
        for each in module.classes
        if {"scope", "receive", "send"} <= set(arguments_of_call(each))
    ]
    assert not violations, report("middleware is of one base", violations)


def passes_on(node: ast.Call) -> bool:
    """Whether a call is that of an application."""
    texts = [ast.unparse(argument) for argument in node.args]
    return len(texts) == 3 and bool(re.match(r"scope$|\{\*\*scope", texts[0])) and "receive" in texts[1]


def arguments_of_call(each: ast.ClassDef) -> Iterator[str]:
    """The parameters of a class's `__call__`."""
    for node in each.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "__call__":
            yield from (argument.arg for argument in node.args.args)


def compared(node: ast.Compare | ast.Call) -> Iterator[str]:
    """The strings that an expression compares something with."""
    if isinstance(node, ast.Compare):
        values = [node.left, *node.comparators]
    elif isinstance(node.func, ast.Attribute) and node.func.attr in {"startswith", "endswith"}:
        values = node.args
    else:
        return
    for value in values:
        for part in ast.walk(value):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def test_the_rules_apply_to_something() -> None:
    """The package has not moved away."""
    assert {"serve/middleware/http_middleware.py", "serve/routes.py", "serve/response_hooks.py"} <= {
        each.name for each in SERVE
    }
