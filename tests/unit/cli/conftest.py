"""A store, and the command line over it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headway.cli import main
from headway.objectstore.folder import FolderStore


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


Headway = Callable[..., Answer]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """An empty store, which commands find without being told."""
    found = FolderStore(tmp_path / "store")
    monkeypatch.setenv("HEADWAY_STORE", found.url)
    monkeypatch.chdir(tmp_path)
    return found


@pytest.fixture
def headway(capsys: pytest.CaptureFixture[str]) -> Headway:
    """Runs `headway WORD ...` in this process."""

    def call(*words: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(words)
        told = capsys.readouterr()
        return Answer(int(left.value.code or 0), told.out, told.err)

    return call
