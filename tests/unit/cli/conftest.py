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
    """The exit code and the output of a command."""

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
    """An empty store that commands use by default."""
    folder = FolderStore(tmp_path / "store")
    monkeypatch.setenv("HEADWAY_STORE", folder.url)
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def headway(capsys: pytest.CaptureFixture[str]) -> Headway:
    """Runs `headway WORD ...` in this process."""

    def call(*words: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_request:
            main(words)
        output = capsys.readouterr()
        return Answer(int(exit_request.value.code or 0), output.out, output.err)

    return call
