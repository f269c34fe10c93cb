"""Small objects are read past boto3 where that is sound, and the long way where it is not."""

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
    """A real S3 server; this process finds it by its environment."""
    with S3Server(tmp_path_factory.mktemp("s3")) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture
def store(server: S3Server, tmp_path: Path) -> S3Store:
    """A store of the test's own, with three objects under awkward names."""
    found = S3Store(f"{server.url}/a prefix+{tmp_path.name}?budget_seconds=2")
    for key in ("plain", "runs/r.lr-3e-4/a b", "ä+%20"):
        found.put(key, [key.encode() * 100])
    found.put("empty", [])
    return found


def test_objects_come_whole_by_the_shortcut(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in their names; boto3 is not asked."""
    store.get("plain")
    monkeypatch.setattr(store.bucket, "send", None)
    keys = ["plain", "runs/r.lr-3e-4/a b", "ä+%20", "empty"] * 5
    assert list(store.get_all(keys)) == [b"" if key == "empty" else key.encode() * 100 for key in keys]


def test_a_missing_object_is_asked_for_the_long_way(store: S3Store) -> None:
    """It is None, in its place, and the next ones come by the shortcut again."""
    assert list(store.get_all(["nobody", "plain", "nobody"])) == [None, b"plain" * 100, None]
    assert FastGet(store.bucket).get("nobody") is None


@pytest.mark.parametrize("answer", [500, 403, 307, "cut", "reset"])
def test_anything_strange_is_left_to_the_long_way(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, answer: int | str
) -> None:
    """An error, a redirection, an answer cut short, a connection lost: the object comes all the same."""
    shortcut = FastGet(store.bucket)
    http = shortcut._http  # noqa: SLF001 - what it sends by is the seam to break
    calls: list[str] = []

    class Strange:
        def send(self, request: Any) -> Any:
            calls.append(request.url)
            if answer == "reset":
                raise ConnectionResetError
            found = http.send(request)
            if answer == "cut":
                found._content = found.content[:-1]  # noqa: SLF001
            else:
                found.status_code = answer
            return found

    monkeypatch.setattr(shortcut, "_http", Strange())
    monkeypatch.setattr(store, "_shortcut", shortcut)
    assert list(store.get_all(["plain"])) == [b"plain" * 100]
    assert len(calls) == 1
    assert shortcut.get("plain") is None
    assert len(calls) == (2 if answer == "cut" else 1)


def test_wrong_credentials_are_named_as_ever(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The long way says what is wrong; without any credentials, too."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UsageError, match="are not accepted"):
        list(S3Store(store.url).get_all(["plain"]))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UsageError, match="Unable to locate credentials"):
        list(S3Store(store.url).get_all(["plain"]))
