"""The package's source as syntax trees, for the contract tests about names and structure. Imports nothing of it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "platform/headway"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    path: Path

    @property
    def name(self) -> str:
        """The path inside the package, such as `train/loop.py`."""
        return self.path.relative_to(PACKAGE).as_posix()

    @property
    def dotted(self) -> str:
        """The name that imports it; for `__init__.py` the name of the package."""
        parts = self.path.relative_to(PACKAGE.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def text(self) -> str:
        """The source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of its tree."""
        return list(ast.walk(ast.parse(self.text, self.path)))

    @property
    def classes(self) -> Iterator[ast.ClassDef]:
        """All classes, nested ones too."""
        return (node for node in self.nodes if isinstance(node, ast.ClassDef))

    @property
    def functions(self) -> Iterator[Function]:
        """All functions, methods and nested ones too."""
        return (node for node in self.nodes if isinstance(node, Function))

    def at(self, node: ast.stmt | ast.expr | ast.arg) -> str:
        """Where a node stands, as `train/loop.py:12`."""
        return f"{self.name}:{node.lineno}"


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
assert MODULES, "the package has moved"


def report(rule: str, violations: list[str]) -> str:
    """What a test says when it fails: the rule, and every violation."""
    return "\n".join([f"{rule}: {len(violations)} violations", *violations])
