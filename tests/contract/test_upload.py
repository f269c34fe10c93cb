"""What is written to S3 is sent from where it lies: what that takes of memory, and what comes of it there."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from tests.engines.s3.server import S3Server

from headway.cli import main
from headway.objectstore import Buffer
from headway.objectstore.object_body import CHECKSUM, ObjectBody
from headway.objectstore.s3 import S3Store
from headway.runs import keys

MEBIBYTE = 1 << 20
PART = 5 * MEBIBYTE
PARTS = 12
AROUND = MEBIBYTE
"""What requests and answers themselves may take."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, in a process of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def url(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place there."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{server.url}/{uuid4().hex}"


def peak(action: Callable[[], None]) -> int:
    """Memory that was taken at most during `action`, beyond what was held before [bytes]."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        action()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("whole", [0, 100 * MEBIBYTE], ids=["in parts", "whole"])
def test_bytes_that_lie_in_memory_are_not_copied(url: str, whole: int) -> None:
    """A shard goes up from the copy of the state: whatever its length, a request takes next to no memory."""
    store = S3Store(f"{url}?part_bytes={PART}&whole_bytes={whole}")
    store.put("warm", [bytes(PART + MEBIBYTE)])
    state = memoryview(bytearray(np.random.default_rng(0).bytes(4 * PART)))
    pieces: list[Buffer] = [b"header", *(state[at : at + 300_000] for at in range(0, state.nbytes, 300_000))]
    assert peak(lambda: store.put("shard", pieces)) <= AROUND
    assert store.get("shard") == b"".join(pieces)


def test_the_server_keeps_a_checksum_of_all_bytes(url: str) -> None:
    """Of an object that went up whole as of one in parts, which its ETag tells apart."""
    data = np.random.default_rng(1).bytes(2 * PART + 3)
    for whole in (0, 100 * MEBIBYTE):
        store = S3Store(f"{url}?part_bytes={PART}&whole_bytes={whole}")
        store.put("key", [data])
        kept = store.bucket.request("looked up", "key", "head_object", ChecksumMode="ENABLED")
        assert ("-" in kept["ETag"]) == (not whole)
        assert kept[f"Checksum{CHECKSUM}"] == ObjectBody([memoryview(data)]).checksum


class Carrier(Future[Any]):
    """A part that is carried only when somebody waits for it: the slowest that a part can be."""

    def __init__(self, action: Callable[[], Any]) -> None:
        super().__init__()
        self.action: Callable[[], Any] | None = action

    def result(self, timeout: float | None = None) -> Any:
        """Carry it now."""
        if self.action:
            action, self.action = self.action, None
            self.set_result(action())
        return super().result(timeout)


class Carriers:
    """Instead of threads."""

    def submit(self, action: Callable[..., Any], *arguments: Any) -> Carrier:
        """Put it off."""
        return Carrier(lambda: action(*arguments))


@pytest.mark.parametrize("connections", [1, 4])
def test_bytes_that_are_made_on_the_way_are_held_in_few_parts(url: str, connections: int) -> None:
    """However slow the store is, `connections + 1` parts are held at most, and not all bytes of the object."""
    store = S3Store(f"{url}?part_bytes={PART}&connections={connections}")
    store.put("warm", [bytes(PART + MEBIBYTE)])
    vars(store)["_upload_pool"] = Carriers()
    made = (bytes([number]) * PART for number in range(PARTS))
    assert connections * PART < peak(lambda: store.put("key", made)) <= (connections + 1) * PART + AROUND
    assert store.size("key") == PARTS * PART


def test_gc_aborts_only_uploads_to_keys_of_headway(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Another application may upload to the same bucket."""
    store = S3Store(url)
    ours = [keys.shard(keys.checkpoint("run", 10, 1), 0, 1), keys.version("coder", 10, "0123456789abcdef") + "a.json"]
    others = ["backup.tar", "runs/run/video.mp4", "runs/2026/11/x.safetensors", "submissions/x/y.json"]
    for key in (*ours, *others):
        store.bucket.request("written", key, "create_multipart_upload")
    with pytest.raises(SystemExit):
        main(["store", "gc", "--older-than", "0", "--json", "--store", url])
    assert {each["key"] for each in json.loads(capsys.readouterr().out)["objects"]} == {*ours}
    assert {write.key for write in store.unfinished()} == {*others}
