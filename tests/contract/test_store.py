"""All kinds of store behave the same: a folder, a real S3 server, and a second S3 implementation."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.engines.s3.server import S3Server

from headway.errors import DamageError, ExistingObject, MissingObject, UsageError
from headway.objectstore import Store, open_store, read_document
from headway.objectstore.s3 import S3Store

KINDS = ("file", "versitygw", "moto")
Reach = Callable[[pytest.MonkeyPatch], str]
"""Sets the environment that reaches a store, and returns its URL."""
SMALL_PARTS = "?part_bytes=5242880&whole_bytes=0"


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reach]]:
    """A way to reach each kind of store."""
    folder = tmp_path_factory.mktemp("stores")
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "moto", "AWS_SECRET_ACCESS_KEY": "moto", "AWS_DEFAULT_REGION": "us-east-1"}
    at_moto = {**keys, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    client = boto3.client(
        "s3", endpoint_url=at_moto["AWS_ENDPOINT_URL"], region_name="us-east-1",
        aws_access_key_id="moto", aws_secret_access_key="moto",  # noqa: S106 - a local test server
    )  # fmt: skip
    client.create_bucket(Bucket="headway")

    with S3Server(folder) as server:

        def reach(environment: dict[str, str], url: str) -> Reach:
            def use(patch: pytest.MonkeyPatch) -> str:
                for name, value in environment.items():
                    patch.setenv(name, value)
                return url

            return use

        yield {
            "file": reach({}, (folder / "files").as_uri()),
            "versitygw": reach(server.environment, f"{server.url}/tests"),
            "moto": reach(at_moto, "s3://headway/tests"),
        }
    moto.stop()


@pytest.fixture(params=KINDS)
def url(
    request: pytest.FixtureRequest,
    urls: dict[str, Callable[[pytest.MonkeyPatch], str]],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The URL of an empty store of each kind."""
    return f"{urls[request.param](monkeypatch)}/{uuid4().hex}"


@pytest.fixture
def store(url: str) -> Store:
    """An empty store of each kind."""
    return open_store(url)


def test_an_object_is_read_back_whole_and_in_ranges(store: Store) -> None:
    """Reads return the object or any range of it, and its length; past its end there is nothing."""
    store.put("a/b.bin", [b"hello ", bytearray(b"wor"), memoryview(b"ld")])
    assert store.get("a/b.bin") == b"hello world"
    assert store.get("a/b.bin", 6, 3) == b"wor"
    assert store.get("a/b.bin", 6) == b"world"
    assert store.get("a/b.bin", 6, 0) == b""
    assert store.get("a/b.bin", 11, 5) == b""
    assert store.size("a/b.bin") == 11


def test_an_object_may_be_empty(store: Store) -> None:
    """An object without bytes can be stored and read."""
    store.put("empty", [])
    assert store.get("empty") == b""
    assert store.size("empty") == 0


def test_bytes_are_read_into_a_buffer(store: Store) -> None:
    """A buffer is filled from any byte on, up to the end of the object."""
    store.put("key", [b"0123456789"])
    buffer = bytearray(b"....")
    assert store.fill("key", memoryview(buffer), 3) == 4
    assert buffer == b"3456"
    assert store.fill("key", memoryview(buffer), 8) == 2
    assert buffer == b"8956"
    assert store.fill("key", memoryview(buffer), 10) == 0
    assert store.fill("key", memoryview(bytearray())) == 0


def test_a_document_is_read_up_to_its_bound(store: Store) -> None:
    """One that is longer is refused, and not read whole."""
    store.put("key", [b"0123456789"])
    store.put("empty", [])
    assert read_document(store, "key", 10) == b"0123456789"
    assert read_document(store, "empty", 10) == b""
    with pytest.raises(DamageError, match="key: is longer than 9 bytes"):
        read_document(store, "key", 9)
    with pytest.raises(MissingObject):
        read_document(store, "nowhere", 9)


def test_a_whole_read_has_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer object is read in ranges alone."""
    for module in ("folder", "s3"):
        monkeypatch.setattr(f"headway.objectstore.{module}.WHOLE_BYTES", 9)
    store.put("key", [b"0123456789"])
    with pytest.raises(DamageError, match="key: is longer than 9 bytes"):
        store.get("key")
    assert store.get("key", 0, 10) == b"0123456789"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\0b", "a\nb", "\udc80", "x" * 1025]
)
def test_what_is_no_key_in_one_kind_of_store_is_none_in_any(store: Store, key: str) -> None:
    """So a run can be copied from one to another."""
    for use in (store.get, store.size, store.delete, lambda key: store.put(key, [b""]), lambda k: store.create(k, b"")):
        with pytest.raises(UsageError, match="is not an object key"):
            use(key)


def test_a_folder_marker_is_no_object(store: Store) -> None:
    """Consoles and mounts leave objects whose keys end in a slash."""
    store.put("runs/a/x", [b""])
    if isinstance(store, S3Store):
        bucket = store.bucket
        bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}runs/a/b/", Body=b"")
    assert list(store.list("runs/")) == ["runs/a/x"]
    assert [key for key, _ in store.sizes("")] == ["runs/a/x"]


def test_a_put_replaces_an_object(store: Store) -> None:
    """Reads return the last of several puts."""
    store.put("key", [b"first, and longer"])
    store.put("key", [b"second"])
    assert store.get("key") == b"second"


def test_a_created_object_is_never_replaced_by_a_create(store: Store) -> None:
    """The second create of a key fails, and the bytes of the first stay."""
    store.create("key", b"first")
    with pytest.raises(ExistingObject, match="key: exists already in"):
        store.create("key", b"second")
    assert store.get("key") == b"first"


def test_of_racing_creates_exactly_one_succeeds(store: Store) -> None:
    """Sixteen writers create one key at once: one succeeds, and its bytes are stored."""

    def attempt(number: int) -> int | None:
        try:
            store.create("key", str(number).encode())
        except ExistingObject:
            return None
        return number

    with ThreadPoolExecutor(16) as threads:
        winners = [w for w in threads.map(attempt, range(16)) if w is not None]
    assert len(winners) == 1
    assert store.get("key") == str(winners[0]).encode()


def test_a_missing_object_raises_its_own_error(store: Store) -> None:
    """Reading or measuring it raises `MissingObject`; deleting it is no error."""
    for read in (store.get, store.size, lambda key: store.fill(key, memoryview(bytearray(1)))):
        with pytest.raises(MissingObject, match="nowhere: no such object in"):
            read("nowhere")
    store.delete("nowhere")


def test_a_deleted_object_is_gone(store: Store) -> None:
    """It is not listed, and its key can be created again."""
    store.create("a/b/c", b"x")
    store.delete("a/b/c")
    assert list(store.list("")) == []
    store.create("a/b/c", b"y")


def test_concurrent_deletes_do_not_disturb_writers(store: Store) -> None:
    """Eight writers create and delete in one folder; none fails because another has just emptied it."""

    def create_and_delete(number: int) -> None:
        for again in range(50):
            store.create(f"place/of/all/{number}-{again}", b"x")
            store.delete(f"place/of/all/{number}-{again}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(create_and_delete, range(8)))
    assert list(store.list("")) == []


def test_listing_is_sorted_and_starts_after(store: Store) -> None:
    """Keys come in order, below a prefix, after a key."""
    for key in ("x/2", "x/10", "x/1/z", "y"):
        store.put(key, [b"."])
    assert list(store.list("x/")) == ["x/1/z", "x/10", "x/2"]
    assert list(store.list("x/1")) == ["x/1/z", "x/10"]
    assert list(store.list("x/", after="x/10")) == ["x/2"]
    assert list(store.list("")) == ["x/1/z", "x/10", "x/2", "y"]
    assert list(store.list("nothing/")) == []


def test_lengths_are_listed_with_the_keys(store: Store) -> None:
    """Listed lengths equal the lengths of the objects."""
    for key, data in {"a/2": b"12", "a/1": b"", "b": b"123"}.items():
        store.put(key, [data])
    assert list(store.sizes("a/")) == [("a/1", 0), ("a/2", 2)]
    assert dict(store.sizes("")) == {key: store.size(key) for key in store.list("")}


def test_many_objects_are_read_in_their_order(store: Store) -> None:
    """Bodies come in the order of the keys; None for a missing one."""
    for number in range(20):
        store.put(f"{number}", [b"%d" % number])
    assert list(store.get_all(["3", "nowhere", "19", "3"], 100)) == [b"3", None, b"19", b"3"]
    assert list(store.get_all(["19", "nowhere"], 1)) == [b"1", None]
    assert list(store.get_all([], 100)) == []


def test_folders_are_listed_without_their_contents(store: Store) -> None:
    """Each name comes once; objects directly below the prefix are no folders."""
    for key in ("runs/b/1", "runs/b/2/3", "runs/a/1", "runs/file", "other/c/1"):
        store.put(key, [b"."])
    assert list(store.folders("runs/")) == ["a", "b"]
    assert list(store.folders("nothing/")) == []


def test_a_long_listing_is_complete(store: Store) -> None:
    """It has more keys than one page of S3."""
    keys = [f"journal/{number:08d}" for number in range(1, 1_201)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: store.put(key, [b"."]), keys))
    assert list(store.list("journal/")) == keys
    assert list(store.list("journal/", after=keys[99])) == keys[100:]


def test_a_large_object_is_written_whole_or_in_parts_and_reads_the_same(url: str) -> None:
    """Buffers that do not match the parts, and a short last part, change no byte."""
    for store in (open_store(url), open_store(url + (SMALL_PARTS if url.startswith("s3:") else ""))):
        large_object(store)


def large_object(store: Store) -> None:
    """Write a large object and compare it with what is read."""
    data = os.urandom(12_000_001)
    store.put("large", [data[:7], data[7:70_000], data[70_000:200_000], data[200_000:6_000_000], data[6_000_000:]])
    assert store.size("large") == len(data)
    assert store.get("large") == data
    assert store.get("large", 5_242_870, 20) == data[5_242_870:5_242_890]


def test_a_large_object_appears_whole_or_not_at_all(url: str) -> None:
    """A writer that fails midway leaves the old object, and nothing else in the listing."""
    store = open_store(url + (SMALL_PARTS if url.startswith("s3:") else ""))
    store.put("large", [b"old"])

    def failing() -> Iterator[bytes]:
        yield bytes(6_000_000)
        raise RuntimeError("the writer died")

    with pytest.raises(RuntimeError):
        store.put("large", failing())
    assert store.get("large") == b"old"
    assert list(store.list("")) == ["large"]


def test_the_url_opens_the_same_store_again(store: Store) -> None:
    """Ranks get the URL of a store and open it themselves."""
    store.put("key", [b"x"])
    assert open_store(store.url).get("key") == b"x"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "unknown kind of store"),
        ("s3:///prefix", "names no bucket"),
        ("s3://bucket?speed=9", "speed: extra inputs are not permitted; settings after the ? are budget_seconds"),
        ("s3://bucket?connections=0", "connections: input should be greater than 0"),
        ("s3://bucket?nonsense", "not name=value"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, message: str) -> None:
    """The message says what is wrong, and what may stand there."""
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert message in str(caught.value)
    assert url in str(caught.value)
