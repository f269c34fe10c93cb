"""Small objects are read without boto3 where that works, and through `Bucket` otherwise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engines.s3.server import S3Server

from headway.errors import UsageError
from headway.objectstore.fast_get import FastGet
from headway.objectstore.s3 import S3Store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server that the environment points to."""
    with S3Server(tmp_path_factory.mktemp("s3")) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def store(server: S3Server, tmp_path: Path) -> S3Store:
    """A store with objects under awkward names."""
    store = S3Store(f"{server.url}/a prefix+{tmp_path.name}?budget_seconds=2")
    for key in ("plain", "runs/r.lr-3e-4/a b", "ä+%20"):
        store.put(key, [key.encode() * 100])
    store.put("empty", [])
    return store


def test_objects_are_read_whole_without_boto3(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever characters their keys have."""
    store.get("plain")
    monkeypatch.setattr(store.bucket, "request_once", None)
    keys = ["plain", "runs/r.lr-3e-4/a b", "ä+%20", "empty"] * 5
    assert list(store.get_all(keys, 10_000)) == [b"" if key == "empty" else key.encode() * 100 for key in keys]


def test_a_missing_object_is_none_in_its_place(store: S3Store) -> None:
    """The objects after it are read as usual."""
    assert list(store.get_all(["nobody", "plain", "nobody"], 10_000)) == [None, b"plain" * 100, None]
    assert FastGet(store.bucket).get("nobody", 10_000) is None


@pytest.mark.parametrize("answer", [500, 403, 307, "cut", "reset"])
def test_any_other_response_is_left_to_the_bucket(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, answer: int | str
) -> None:
    """An error, a redirect, a truncated body, a lost connection: the object is read all the same."""
    fast_get = FastGet(store.bucket)
    http = fast_get._http  # noqa: SLF001 - what it sends by is the seam to break
    calls: list[str] = []

    class Strange:
        def send(self, request: Any) -> Any:
            calls.append(request.url)
            if answer == "reset":
                raise ConnectionResetError
            response = http.send(request)
            if answer == "cut":
                response._content = response.content[:-1]  # noqa: SLF001
            else:
                response.status_code = answer
            return response

    monkeypatch.setattr(fast_get, "_http", Strange())
    monkeypatch.setattr(store, "_fast_get", fast_get)
    assert list(store.get_all(["plain"], 10_000)) == [b"plain" * 100]
    assert len(calls) == 1
    assert fast_get.get("plain", 10_000) is None
    assert len(calls) == (2 if answer == "cut" else 1)


def test_wrong_credentials_are_reported_as_elsewhere(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejected credentials and missing ones raise the errors of `Bucket`."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UsageError, match="rejects these credentials"):
        list(S3Store(store.url).get_all(["plain"], 10_000))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UsageError, match="Unable to locate credentials"):
        list(S3Store(store.url).get_all(["plain"], 10_000))
