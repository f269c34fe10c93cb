"""Kinds that are built in are found without a search; those of installed packages by their entry points."""

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest
from tests.plugin.install import HERE, ROOT, install

from headway.errors import UsageError
from headway.plugins import Kinds
from headway.recipe import AdamW, Optimizer

GROUP = "headway.optimizers.settings"


def kinds(base: type[Any] = Optimizer) -> Kinds[type[Optimizer]]:
    """The kinds of the group, of which one is built in."""
    return Kinds(GROUP, base, {"adamw": AdamW})


def test_a_builtin_kind_costs_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed packages are not searched for a built-in kind, and cannot replace it."""
    monkeypatch.setattr(importlib.metadata, "entry_points", None)
    assert kinds()["adamw"] is AdamW
    assert kinds().package("adamw") is None
    with pytest.raises(TypeError):
        kinds().get("lion")


def test_a_kind_of_an_installed_package_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known by name, package and version while the package is installed."""
    assert kinds().get("lion") is None
    install(tmp_path, monkeypatch)
    assert kinds()["lion"].__name__ == "Lion"
    assert kinds().names() == ["adamw", "lion"]
    assert kinds().package("lion") == "headway-second 1.0"


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error suggests the nearest kind and lists all of them."""
    install(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=r"unknown kind 'lyon'; did you mean lion\? installed kinds: adamw, lion$"):
        kinds()["lyon"]


def test_one_kind_of_two_packages_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them is meant cannot be known; the error names both."""
    install(tmp_path / "one", monkeypatch)
    install(tmp_path / "other", monkeypatch, name="third")
    with pytest.raises(
        UsageError, match=r"several packages have lion: (third 1.0, headway-|headway-second 1.0, third)"
    ):
        kinds().get("lion")


def test_an_object_of_another_class_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point must hold what its group is for."""
    install(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=r"lion of headway-second 1\.0 is <class .*Lion'>, and not a AdamW"):
        kinds(AdamW).get("lion")


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error quotes what went wrong."""
    install(tmp_path, monkeypatch)
    (entry_points,) = tmp_path.rglob("entry_points.txt")
    entry_points.write_text(f"[{GROUP}]\nlion = tests.plugin.absent:Lion\n")
    with pytest.raises(UsageError, match=r"lion of headway-second 1\.0 cannot be loaded: No module named"):
        kinds().get("lion")


@pytest.mark.parametrize(
    ("page", "files"),
    [("training.md", ("lion_settings.py", "lion.py")), ("model.md", ("averaging_settings.py", "averaging.py"))],
)
def test_the_pages_show_the_package_that_is_tested(page: str, files: tuple[str, ...]) -> None:
    """Each block of code under "Add ..." is part of a file of tests/plugin, line for line."""
    section = (ROOT / "docs" / page).read_text(encoding="utf-8").partition("\n## Add ")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(?:toml|python)\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 1 + len(files)
    sources = [(HERE / file).read_text(encoding="utf-8") for file in ("pyproject.toml", *files)]
    for block in blocks:
        assert any(block.strip() in source for source in sources), block
