"""What has several kinds, such as optimizers: the built-in kinds, and those of other installed packages.

A package adds a kind by an entry point in its pyproject.toml, the standard way of Python packages:

    [project.entry-points."headway.optimizers"]
    lion = "my_package.lion:LION"

A built-in kind cannot be replaced, and finding it costs nothing: installed packages are searched only for other kinds.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from headway.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Kinds(Generic[T]):
    """One object for each kind."""

    def __init__(self, group: str, base: type[Any], builtin: Mapping[str, T]) -> None:
        """`group` is the group of entry points. Each is an instance of `base`, or one of its subclasses."""
        self.group, self.base, self._builtin = group, base, builtin

    def __getitem__(self, kind: str) -> T:
        """The object of `kind`.

        Raises:
            UsageError: no installed package has it, or it cannot be loaded.
        """
        value = self.get(kind)
        if value is None:
            raise UsageError(f"{self.group}: {self.unknown(kind)}")
        return value

    def get(self, kind: str) -> T | None:
        """The object of `kind`, or None if no installed package has it.

        Raises:
            UsageError: it cannot be loaded.
        """
        if kind in self._builtin:
            return self._builtin[kind]
        match [point for point in self._entry_points() if point.name == kind]:
            case []:
                return None
            case [point]:
                return self._load(point)
            case several:
                raise UsageError(f"{self.group}: several packages have {kind}: {', '.join(map(_package, several))}")

    def names(self) -> list[str]:
        """All kinds, the built-in ones first."""
        others = {point.name for point in self._entry_points()} - self._builtin.keys()
        return [*self._builtin, *sorted(others)]

    def unknown(self, kind: str) -> str:
        """The error message about a `kind` that does not exist, without a period."""
        names = self.names()
        near = nearest(kind, names)
        hint = f"did you mean {near}? " if near else ""
        return f"unknown kind {kind!r}; {hint}installed kinds: {', '.join(names)}"

    def package(self, kind: str) -> str | None:
        """Name and version of the package that adds `kind`; None for a built-in one."""
        points = [] if kind in self._builtin else self._entry_points()
        return next((_package(point) for point in points if point.name == kind), None)

    def _entry_points(self) -> "Iterable[EntryPoint]":
        from importlib.metadata import entry_points  # slow to import

        return entry_points(group=self.group)

    def _load(self, point: "EntryPoint") -> T:
        try:
            value = point.load()
        except Exception as error:  # any error of foreign code
            raise UsageError(f"{self.group}: {point.name} of {_package(point)} cannot be loaded: {error}") from error
        if not (isinstance(value, self.base) or (isinstance(value, type) and issubclass(value, self.base))):
            raise UsageError(
                f"{self.group}: {point.name} of {_package(point)} is {value!r}, and not a {self.base.__name__}"
            )
        return cast("T", value)


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of `names`; empty if none is similar."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)), "")


def _package(point: "EntryPoint") -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
