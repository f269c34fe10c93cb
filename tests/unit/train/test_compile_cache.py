"""Where compiled code is kept: found again by the next start, chosen by the user, never in anybody's way."""

import os
from pathlib import Path

import pytest
import torch

from headway.train import compile_cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own; what the test sets in the environment is undone."""
    for name in (compile_cache.FOLDER, compile_cache.INDUCTOR):
        monkeypatch.setenv(name, "undone")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_next_start_finds_the_same_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the user's cache folder; torch is told by its environment, and others cannot write there."""
    first = compile_cache.use_compile_cache()
    assert first
    assert Path(first).is_relative_to(home / "headway")
    assert os.environ[compile_cache.INDUCTOR] == first
    assert Path(first).stat().st_mode & 0o077 == 0
    monkeypatch.delenv(compile_cache.INDUCTOR)
    assert compile_cache.use_compile_cache() == first


def test_a_folder_is_chosen_for_the_cluster(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that all machines share."""
    monkeypatch.setenv(compile_cache.FOLDER, str(home / "shared"))
    assert Path(compile_cache.use_compile_cache() or "").is_relative_to(home / "shared")


def test_what_the_user_told_torch_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets torch's own variable has chosen."""
    monkeypatch.setenv(compile_cache.INDUCTOR, "/chosen")
    monkeypatch.setenv(compile_cache.FOLDER, "/other")
    assert compile_cache.use_compile_cache() == "/chosen"


def test_without_a_place_to_write_torch_chooses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache is no reason not to train."""
    (home / "file").touch()
    monkeypatch.setenv(compile_cache.FOLDER, str(home / "file"))
    assert compile_cache.use_compile_cache() is None
    assert compile_cache.INDUCTOR not in os.environ


def test_code_of_another_torch_or_processor_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not even run here."""
    folders = [compile_cache.use_compile_cache()]
    monkeypatch.delenv(compile_cache.INDUCTOR)
    monkeypatch.setattr(torch, "__version__", "9.9")
    folders.append(compile_cache.use_compile_cache())
    monkeypatch.delenv(compile_cache.INDUCTOR)
    monkeypatch.setattr(compile_cache, "_processor", lambda: "another")
    folders.append(compile_cache.use_compile_cache())
    assert None not in folders
    assert len(set(folders)) == 3
