"""Where compiled code is kept: found again by the next start, chosen by the user, never in anybody's way."""

import os
from pathlib import Path

import pytest
import torch

from headway.train import cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own; what the test sets in the environment is undone."""
    for name in (cache.FOLDER, cache.INDUCTOR):
        monkeypatch.setenv(name, "undone")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_next_start_finds_the_same_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the user's cache folder; torch is told by its environment, and others cannot write there."""
    first = cache.settle()
    assert first
    assert Path(first).is_relative_to(home / "headway")
    assert os.environ[cache.INDUCTOR] == first
    assert Path(first).stat().st_mode & 0o077 == 0
    monkeypatch.delenv(cache.INDUCTOR)
    assert cache.settle() == first


def test_a_folder_is_chosen_for_the_cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that all machines share."""
    monkeypatch.setenv(cache.FOLDER, str(home / "shared"))
    assert Path(cache.settle() or "").is_relative_to(home / "shared")


def test_what_the_user_told_torch_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets torch's own variable has chosen."""
    monkeypatch.setenv(cache.INDUCTOR, "/chosen")
    monkeypatch.setenv(cache.FOLDER, "/other")
    assert cache.settle() == "/chosen"


def test_without_a_place_to_write_torch_chooses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache is no reason not to train."""
    (home / "file").touch()
    monkeypatch.setenv(cache.FOLDER, str(home / "file"))
    assert cache.settle() is None
    assert cache.INDUCTOR not in os.environ


def test_code_of_another_torch_or_processor_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not even run here."""
    folders = [cache.settle()]
    monkeypatch.delenv(cache.INDUCTOR)
    monkeypatch.setattr(torch, "__version__", "9.9")
    folders.append(cache.settle())
    monkeypatch.delenv(cache.INDUCTOR)
    monkeypatch.setattr(cache, "_processor", lambda: "another")
    folders.append(cache.settle())
    assert None not in folders
    assert len(set(folders)) == 3
