"""How tests are shared out among the workers of pytest-xdist: what shares an engine stays on one, the longest begins.

A file goes to one worker, which starts its engines once. The mark `xdist_group` joins files that share an engine, or
takes a test out of its file; `spread` says that the tests of a file share nothing, and each goes where there is room.
"""

import json
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

LONGEST = ("soak", "service", "limits", "array")
"""Groups that begin before all others, lest a worker be alone with one of them in the end."""
FILE = "groups"
"""Where a worker is told to write which group each test is in: the scheduler knows the tests by name only."""


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """A group of tests at a time, in the order that they are collected in.

    This is what xdist's own `loadgroup` promises; xdist 3.8 passes groups in a way that pytest 9.2 no longer has.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    @cached_property
    def groups(self) -> dict[str, str]:
        """The group of each test."""
        groups: dict[str, str] = json.loads(Path(self.config.stash[FOLDER].name, FILE).read_text(encoding="utf-8"))
        return groups

    def _split_scope(self, nodeid: str) -> str:
        return self.groups[nodeid]


FOLDER = pytest.StashKey[TemporaryDirectory[str]]()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling | None:
    """Replace `--dist loadgroup`."""
    return GroupScheduling(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker where to write the groups."""
    folder = node.config.stash.setdefault(FOLDER, TemporaryDirectory(prefix="headway-tests-"))
    node.workerinput[FILE] = str(Path(folder.name, FILE))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what the workers wrote."""
    if folder := config.stash.get(FOLDER, None):
        folder.cleanup()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort groups by how long they take, and leave each in its order; a worker tells the scheduler what they are."""
    slow = {group(item) for item in items if item.get_closest_marker("slow")}
    ranks = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(group(item), len(LONGEST) + (group(item) not in slow)))
    worker = getattr(config, "workerinput", None)
    if worker and worker["workerid"] == "gw0":
        Path(worker[FILE]).write_text(json.dumps({item.nodeid: group(item) for item in items}), encoding="utf-8")


def group(item: pytest.Item) -> str:
    """The name of a test's group: its mark's, else that of its file, or its own where its file is spread."""
    if mark := item.get_closest_marker("xdist_group"):
        return str(mark.args[0])
    return item.nodeid if item.get_closest_marker("spread") else item.nodeid.partition("::")[0]
