"""A run is the same run wherever it is copied: a folder, a real S3 server, and back."""

from pathlib import Path
from uuid import uuid4

import pytest
from tests.engines.s3.server import S3Server
from tests.unit.cli.story import Story

from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.run_copy import copy_run
from headway.checkpoint.verify import verify
from headway.objectstore import open_store
from headway.objectstore.folder import FolderStore
from headway.runs import Run


def test_a_run_goes_to_s3_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard too large for one request goes up in parts; what came back is the same, byte for byte."""
    here, back = FolderStore(tmp_path / "here"), FolderStore(tmp_path / "back")
    story = Story(here, "tale")
    story.claim(100)
    story.commit(101, 1000, {"model.weight": ("float32", (3 << 20,), bytes(range(256)) * (3 << 14))})
    story.say({"event": "step.done"})
    story.end(102, "preempted", 1000)
    with S3Server(tmp_path / "server") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        remote = open_store(f"{server.url}/{uuid4().hex}?part_bytes=5242880&whole_bytes=0")
        for source, target in ((here, remote), (remote, back)):
            assert sum(copy_run(Run(source, "tale"), target)) == 2 * (12 << 20)
            assert not [each for each in verify(Run(target, "tale")) if not isinstance(each, int)]
        prints = [
            StoredCheckpoint(store, Run(store, "tale").history().commits[-1]).fingerprint() for store in (here, remote)
        ]
        assert prints[0] == prints[1]
        assert not [*remote.unfinished()]
    keys = [*here.list("")]
    assert keys
    assert [*back.list("")] == keys
    assert all(back.get(key) == here.get(key) for key in keys)
