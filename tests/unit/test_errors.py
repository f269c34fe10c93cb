"""Errors cross processes as name and message, and arrive as what they were."""

import pytest

from headway import errors
from headway.errors import HeadwayError


@pytest.mark.parametrize("kind", errors.CLASSES.values())
def test_an_error_of_the_tree_keeps_its_class(kind: type[HeadwayError]) -> None:
    """Class, message and exit code are those of the process that raised it."""
    revived = errors.revive(kind.__name__, "why")
    assert (type(revived), str(revived), revived.exit_code) == (kind, "why", kind.exit_code)


@pytest.mark.parametrize("name", ["", "RuntimeError", "CLASSES", "revive", "__name__", "Exception"])
def test_any_other_name_is_an_error_without_a_class_of_its_own(name: str) -> None:
    """Names of other things in the module, of builtins and of torch's errors revive nothing else."""
    assert type(errors.revive(name, "why")) is HeadwayError


def test_the_tree_is_complete() -> None:
    """Every subclass of the root is found by name."""
    pending, classes = [HeadwayError], set()
    while pending:
        kind = pending.pop()
        classes.add(kind)
        pending += kind.__subclasses__()
    assert set(errors.CLASSES.values()) == {kind for kind in classes if kind.__module__ == errors.__name__}
