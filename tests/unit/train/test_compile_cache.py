"""The cache of compiled code is found by the next launch, can be moved by the user, and is optional."""

import os
from pathlib import Path

import pytest
import torch

from headway.errors import UsageError
from headway.localfiles import CACHE_VARIABLE
from headway.train.compute import compile_cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; restores the environment."""
    for name in (CACHE_VARIABLE, compile_cache.INDUCTOR):
        monkeypatch.setenv(name, "undone")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_next_launch_finds_the_same_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in the user's cache folder, torch's environment variable names it, and other users have no access."""
    first = compile_cache.use_compile_cache()
    assert first
    assert Path(first).is_relative_to(home / "headway")
    assert os.environ[compile_cache.INDUCTOR] == first
    assert Path(first).stat().st_mode & 0o077 == 0
    monkeypatch.delenv(compile_cache.INDUCTOR)
    assert compile_cache.use_compile_cache() == first


def test_the_user_can_choose_the_cache_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example one that all nodes share."""
    monkeypatch.setenv(CACHE_VARIABLE, str(home / "shared"))
    assert Path(compile_cache.use_compile_cache() or "").is_relative_to(home / "shared")


def test_the_users_own_setting_of_torch_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable of torch has precedence."""
    monkeypatch.setenv(compile_cache.INDUCTOR, "/chosen")
    monkeypatch.setenv(CACHE_VARIABLE, "/other")
    assert compile_cache.use_compile_cache() == "/chosen"


def test_a_folder_that_cannot_be_written_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on without the cache."""
    (home / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(home / "file"))
    assert compile_cache.use_compile_cache() is None
    assert compile_cache.INDUCTOR not in os.environ


def test_a_folder_that_others_can_write_to_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would run what they put there; the message says what to set."""
    shared = home / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv(CACHE_VARIABLE, str(shared))
    with pytest.raises(UsageError, match=r"shared is writable by other users.*set HEADWAY_CACHE"):
        compile_cache.use_compile_cache()
    assert compile_cache.INDUCTOR not in os.environ


def test_each_torch_and_processor_has_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code for another one may not run here."""
    folders = [compile_cache.use_compile_cache()]
    monkeypatch.delenv(compile_cache.INDUCTOR)
    monkeypatch.setattr(torch, "__version__", "9.9")
    folders.append(compile_cache.use_compile_cache())
    monkeypatch.delenv(compile_cache.INDUCTOR)
    monkeypatch.setattr(compile_cache, "processor_digest", lambda: "another")
    folders.append(compile_cache.use_compile_cache())
    assert None not in folders
    assert len(set(folders)) == 3


def test_a_user_without_a_home_trains_without_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The home is needed only if no variable names a cache folder."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    assert compile_cache.use_compile_cache() is None
    assert compile_cache.INDUCTOR not in os.environ
