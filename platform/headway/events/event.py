"""The form of an event that the log shows: a frozen dataclass with a name and a level."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

Level = Literal["info", "warning"]


class LogEvent:
    """An event that the log shows. A field that is added later has a default, so that older lines still fit."""

    __slots__: tuple[str, ...] = ()
    name: ClassVar[str]
    """Name as the log shows it: a dotted noun."""
    level: ClassVar[Level]
    """`warning` for a problem that was dealt with, else `info`."""

    def fields(self) -> dict[str, Any]:
        """The fields as the log shows them."""
        return {field: getattr(self, field) for field in self.__slots__}

    @classmethod
    def arguments(cls, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """The arguments that make the event of a line of the log. Further keys do not matter."""
        return record


Kind = TypeVar("Kind", bound=LogEvent)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def event(name: str, level: Level = "info") -> Callable[[type[Kind]], type[Kind]]:
    """Make a class the event that the log shows as `name`: a frozen dataclass with keyword arguments only."""

    def decorate(kind: type[Kind]) -> type[Kind]:
        kind.name, kind.level = name, level
        return dataclass(frozen=True, kw_only=True, slots=True)(kind)

    return decorate
