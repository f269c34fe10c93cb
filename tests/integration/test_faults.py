"""Whatever happens between a client and its S3 server, nothing acknowledged is lost and nothing is made up."""

import gc
import os
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from uuid import uuid4

import boto3
import pytest

from headway.errors import ExistingObject, FencedError, MissingObject, StoreError, UsageError
from headway.objectstore import Store, open_store, retry
from headway.objectstore.probe import check_creates
from headway.objectstore.s3 import S3Store
from headway.runs import Claimed, Committed, Holder, Journal, keys
from tests.engines.s3.faults import BadNetwork, Fault, Plan, Request, always, nothing, odds
from tests.engines.s3.server import BUCKET, S3Server

T = TypeVar("T")
SEED = int(os.environ.get("HEADWAY_FAULT_SEED", "1"))
PART = 5 << 20
WANTED = 500
"""Faults that the long test injects."""
SHARES = {
    Fault.SLOW_DOWN: 0.03,
    Fault.INTERNAL: 0.03,
    Fault.TOO_MANY: 0.03,
    Fault.NOBODY: 0.03,
    Fault.RESET: 0.035,
    Fault.CUT_UPLOAD: 0.05,
    Fault.STALL: 0.015,
    Fault.STALLED_BODY: 0.02,
    Fault.RESET_BODY: 0.03,
    Fault.CUT_BODY: 0.03,
    Fault.EMPTY_BODY: 0.03,
    Fault.HOLLOW: 0.1,
    Fault.LOST: 0.05,
    Fault.THROTTLED: 0.02,
}
STALLS = (Fault.STALL, Fault.STALLED_BODY)
RARE = (Fault.HOLLOW,)
"""Only happens to requests that begin or end an upload in parts."""
PATIENT_SECONDS = 120.0
"""Whoever has no answer by then waits for ever [s]."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server."""
    with S3Server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def network(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[BadNetwork]:
    """The way to it, good until a test says otherwise."""
    retry.bucket_breakers.clear()
    with BadNetwork(server) as between:
        for name, value in between.environment.items():
            monkeypatch.setenv(name, value)
        yield between
    retry.bucket_breakers.clear()


@pytest.fixture
def prefix() -> str:
    """A part of the bucket that is the test's own."""
    return uuid4().hex


def opened(prefix: str, budget: float = 20.0, bucket: str = BUCKET) -> S3Store:
    """The store below a prefix, seen through the network."""
    limits = f"timeout_seconds=0.5&budget_seconds={budget}&part_bytes={PART}&whole_bytes=0"
    store = open_store(f"s3://{bucket}/{prefix}?{limits}")
    assert isinstance(store, S3Store)
    return store


@cache
def direct(server: S3Server) -> Any:
    """A client that goes past the network."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server.environment["AWS_SECRET_ACCESS_KEY"],
    )


def unfinished(server: S3Server, prefix: str) -> list[str]:
    """Keys of uploads that were begun and neither completed nor given up."""
    uploads = direct(server).list_multipart_uploads(Bucket=BUCKET, Prefix=f"{prefix}/").get("Uploads", [])
    return [each["Key"] for each in uploads]


@dataclass
class Hand:
    """Works in one folder of a store, and remembers what must be there."""

    store: Store
    folder: str
    dice: random.Random
    content: dict[str, bytes] = field(default_factory=dict)

    def work(self, steps: int) -> None:
        """Do some of everything, and see that each answer is right."""
        for _ in range(steps):
            self.dice.choice([self.put, self.create, self.read, self.fill, self.list, self.measure, self.delete])()

    def key(self) -> str:
        """One of a few keys, so that some are taken."""
        return f"{self.folder}/{self.dice.randrange(12):02d}"

    def put(self) -> None:
        """Replace an object, now and then by a large one, in one request or in parts."""
        key, large = self.key(), self.dice.random() < 0.25
        data = self.dice.randbytes(self.dice.randrange(PART // 2, 2 * PART) if large else self.dice.randrange(20_000))
        self.store.put(key, [data[:7], memoryview(data)[7:]])
        self.content[key] = data

    def create(self) -> None:
        """Succeed if the key is free, and only then."""
        key, data = self.key(), self.dice.randbytes(200)
        try:
            self.store.create(key, data)
        except ExistingObject:
            assert key in self.content
            return
        assert key not in self.content
        self.content[key] = data

    def read(self) -> None:
        """Get all of it, or a range."""
        key, start, length = self.key(), self.dice.choice([0, 100]), self.dice.choice([None, 150])
        end = None if length is None else start + length
        assert self.or_missing(lambda: self.store.get(key, start, length), key) == self.expected(key, start, end)

    def fill(self) -> None:
        """Get a range into memory that one has."""
        key, buffer = self.key(), bytearray(300)
        got = self.or_missing(lambda: self.store.fill(key, memoryview(buffer), 50), key)
        assert (None if got is None else bytes(buffer[:got])) == self.expected(key, 50, 350)

    def list(self) -> None:
        """See all keys, and no others."""
        assert list(self.store.list(f"{self.folder}/")) == sorted(self.content)

    def measure(self) -> None:
        """See how long an object is."""
        key = self.key()
        assert self.or_missing(lambda: self.store.size(key), key) == (
            len(self.content[key]) if key in self.content else None
        )

    def delete(self) -> None:
        """Remove an object, or none."""
        key = self.key()
        self.store.delete(key)
        self.content.pop(key, None)

    def expected(self, key: str, start: int, end: int | None) -> bytes | None:
        """What must be read."""
        return self.content[key][start:end] if key in self.content else None

    def or_missing(self, read: Callable[[], T], key: str) -> T | None:
        """What was read, None if there is nothing to read."""
        try:
            return read()
        except MissingObject:
            assert key not in self.content
            return None


@dataclass
class Writers:
    """Two processes that take a run from each other."""

    journals: tuple[Journal, Journal]
    acknowledged: list[Claimed | Committed] = field(default_factory=list)

    def work(self, commits: int) -> None:
        """Each claims the run and commits; the one before is fenced."""
        holder = Holder(host="h", pid=1, started=1, launch="x")
        for journal, other in (self.journals, self.journals[::-1]):
            claim = journal.claim(lambda: None, holder=holder, recipe="r")
            self.acknowledged.append(claim)
            for tokens in range(commits):
                manifest = keys.checkpoint_manifest(journal.run, tokens, claim.seq)
                entry = journal.append(Committed, claim.seq, tokens=tokens, manifest=manifest, sha256="0" * 64, bytes=1)
                self.acknowledged.append(entry)
            older = next((e.seq for e in reversed(self.acknowledged) if e.attempt != claim.seq), None)
            if older is not None:
                zombie = keys.checkpoint_manifest(other.run, 0, older)
                with pytest.raises(FencedError):
                    other.append(Committed, older, tokens=0, manifest=zombie, sha256="0" * 64, bytes=1)


@pytest.mark.slow
def test_nothing_is_lost_among_hundreds_of_faults(server: S3Server, network: BadNetwork) -> None:
    """After 500 faults of every kind all that was acknowledged is there, right, once, and nothing else is."""
    print(f"HEADWAY_FAULT_SEED={SEED}")  # noqa: T201 - shown when it fails
    prefix = f"seed-{SEED}"
    store = opened(prefix)
    hands = [Hand(store, f"hand{number}", random.Random(f"{SEED} {number}")) for number in range(6)]
    writers = [Writers((Journal(store, run), Journal(opened(prefix), run))) for run in ("a", "b")]
    network.plan = odds(SEED, SHARES)

    def enough() -> bool:
        return (
            network.injected.total() >= WANTED
            and all(network.injected[fault] >= (2 if fault in RARE else 10) for fault in SHARES)
            and sum(network.injected[fault] for fault in STALLS) >= 20
        )

    with ThreadPoolExecutor(len(hands) + len(writers)) as threads:
        for _ in range(40):
            work = [threads.submit(hand.work, 10) for hand in hands]
            work += [threads.submit(pair.work, 1) for pair in writers]
            for each in work:
                each.result()
            if enough():
                break
    print(*sorted(network.injected.items()), network.seen, sep="\n")  # noqa: T201 - shown when it fails
    assert enough()

    network.plan = nothing
    fresh = opened(prefix)
    for hand in hands:
        assert list(fresh.list(f"{hand.folder}/")) == sorted(hand.content)
        assert {key: fresh.get(key) for key in hand.content} == hand.content
    for pair in writers:
        assert Journal(fresh, pair.journals[0].run).read() == pair.acknowledged
    left = unfinished(server, prefix)
    assert len(left) <= network.spoiled["begin"], "only an upload that its writer never heard of may be left"


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.FORGOTTEN], ids=lambda fault: fault.name.lower())
def test_each_fault_of_each_request_is_survived(
    server: S3Server, network: BadNetwork, prefix: str, fault: Fault
) -> None:
    """Each request of each operation fails once, and every operation does what it should, once."""
    store, large = opened(prefix), os.urandom(2 * PART)
    store.put("large", [bytes(2 * PART)])  # of the same length
    network.plan = once(fault)
    store.put("large", [large])
    assert store.get("large") == large
    store.put("whole", [large[PART:]])
    assert store.get("whole") == large[PART:]
    store.put("small", [b"0123456789"])
    store.create("created", b"mine")
    with pytest.raises(ExistingObject):
        store.create("small", b"not mine")
    assert store.get("small", 2, 3) == b"234"
    buffer = bytearray(4)
    assert store.fill("small", memoryview(buffer), 8) == 2
    assert buffer[:2] == b"89"
    assert store.get("created") == b"mine"
    assert store.size("small") == 10
    assert list(store.list("")) == ["created", "large", "small", "whole"]
    assert list(store.folders("")) == []
    with pytest.raises(MissingObject):
        store.get("nowhere")
    store.delete("small")
    assert list(store.list("s")) == []
    assert network.injected[fault] >= 1
    assert len(unfinished(server, prefix)) <= network.spoiled["begin"]


def once(fault: Fault) -> Plan:
    """A fault for the first request of each operation for each key from now on."""
    harmed: set[tuple[str, str]] = set()

    def decide(request: Request) -> Fault | None:
        new = (request.operation, request.key) not in harmed
        harmed.add((request.operation, request.key))
        return fault if new else None

    return decide


def test_a_store_that_is_gone_is_named_with_its_cause(network: BadNetwork, prefix: str) -> None:
    """Each operation ends within its budget in an error that says which object, which store and why."""
    store = opened(prefix, budget=0.5)
    network.plan = always(Fault.RESET)
    for done, operation in (
        ("written", lambda: store.put("key", [b"x"])),
        ("written", lambda: store.put("key", [bytes(PART + 1)])),
        ("written", lambda: store.create("key", b"x")),
        ("read", lambda: store.get("key")),
        ("looked up", lambda: store.size("key")),
        ("listed", lambda: list(store.list("key"))),
        ("deleted", lambda: store.delete("key")),
    ):
        with pytest.raises(StoreError, match=f"key: cannot be {done} in {re.escape(store.url)}; .*onnection"):
            ended(operation)


def test_a_breaker_spares_a_store_that_fails(network: BadNetwork, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side requests to a store that refuses all are far fewer with the breaker, and still say the cause."""
    network.plan = always(Fault.SLOW_DOWN)

    def count_requests() -> int:
        store, before = opened(prefix, budget=2.0), network.seen.total()
        retry.bucket_breakers.clear()

        def get(number: int) -> None:
            with pytest.raises(StoreError, match=rf"{number}: cannot be read .*SlowDown \(503\)"):
                store.get(str(number))

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(get, range(8)))
        return network.seen.total() - before

    with_breaker = count_requests()
    monkeypatch.setattr(retry, "MAX_FAILURES", 1_000_000)
    assert with_breaker < count_requests() / 2


def test_a_store_that_comes_back_is_used_again(network: BadNetwork, prefix: str) -> None:
    """Whoever asks while the server is away has an answer when it is back, inside of the budget."""
    store = opened(prefix)
    store.put("key", [b"x"])
    network.plan = always(Fault.RESET)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(store.get, "key") for _ in range(8)]
        while network.injected[Fault.RESET] < retry.MAX_FAILURES:
            wait(waiting, timeout=0.01)
        network.plan = nothing
        assert [each.result(PATIENT_SECONDS) for each in waiting] == [b"x"] * 8


@pytest.mark.parametrize("operation", ["create", "size"])
def test_wrong_credentials_are_said_at_once(
    network: BadNetwork, prefix: str, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """A wrong secret, a wrong key and none at all: the message says what to set, and nothing is asked again."""
    act: dict[str, Callable[[Store], object]] = {
        "create": lambda store: store.create("key", b"x"),
        "size": lambda store: store.size("key"),
    }
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(
        UsageError, match=r"rejects these credentials; correct AWS_ACCESS_KEY_ID .*SignatureDoesNotMatch"
    ):
        act[operation](opened(prefix))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(UsageError, match=r"rejects these credentials; correct AWS_ACCESS_KEY_ID .*XAdminUserNotFound"):
        act[operation](opened(prefix))
    assert network.seen.total() == 2
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UsageError, match="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"):
        act[operation](opened(prefix))
    assert network.seen.total() == 2


def test_a_missing_bucket_is_said_at_once(network: BadNetwork, prefix: str) -> None:
    """The message names the bucket and what to do, and the server is asked once."""
    store = opened(prefix, bucket="elsewhere")
    for operation in (lambda: store.put("key", [b"x"]), lambda: store.get("key"), lambda: list(store.list(""))):
        with pytest.raises(UsageError, match="there is no bucket elsewhere; create it, or correct the URL"):
            operation()
    assert network.seen.total() == 3


def test_an_endpoint_that_is_no_url_is_said(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """A forgotten http:// is named, with what to write instead."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:7070")
    with pytest.raises(UsageError, match="Set AWS_ENDPOINT_URL to http://HOST:PORT"):
        opened(prefix).get("key")


def test_an_upload_that_cannot_end_leaves_nothing(server: S3Server, network: BadNetwork, prefix: str) -> None:
    """A part that never arrives: the error names object, part and cause, the old object stays, no part is left."""
    store = opened(prefix, budget=3.0)
    store.put("large", [b"old"])
    harmed = once(Fault.LOST)

    def second_part(request: Request) -> Fault | None:
        if request.operation == "abort":
            return harmed(request)
        return Fault.SLOW_DOWN if request.operation == "part" and request.key.endswith(" 2") else None

    network.plan = second_part
    with pytest.raises(StoreError, match=r"large: cannot be written \(part 2\) in .*SlowDown \(503\)"):
        store.put("large", [bytes(4 * PART)])
    assert network.injected[Fault.LOST] == 1
    network.plan = nothing
    assert store.get("large") == b"old"
    assert unfinished(server, prefix) == []


def test_an_upload_whose_end_was_done_unheard_is_known_as_ones_own(network: BadNetwork, prefix: str) -> None:
    """The answer to the completion is lost, and the server has forgotten the upload when it is asked again."""
    store = opened(prefix)
    store.put("large", [bytes(2 * PART)])

    def unheard(request: Request) -> Fault | None:
        return (Fault.LOST, Fault.FORGOTTEN)[request.turn - 1] if request.operation == "complete" else None

    network.plan = unheard
    data = os.urandom(2 * PART)
    store.put("large", [data])
    assert store.get("large") == data
    assert network.injected == {Fault.LOST: 1, Fault.FORGOTTEN: 1}


def test_an_upload_is_not_given_up_under_its_parts(network: BadNetwork, prefix: str) -> None:
    """One part failed for good, another is on its way: it has arrived or failed before the upload is given up."""
    aborted, under_way, early = threading.Event(), threading.Event(), list[bool]()

    def held(request: Request) -> Fault | None:
        if request.operation == "abort":
            aborted.set()
        if request.operation == "part" and request.key.endswith(" 1"):
            assert under_way.wait(PATIENT_SECONDS)
            return Fault.FORGOTTEN
        if request.operation == "part":
            under_way.set()
            early.append(aborted.wait(0.3))  # for nothing, if all is well
        return None

    network.plan = held
    with pytest.raises(StoreError, match="aborted its upload"):
        opened(prefix).put("large", [bytes(2 * PART)])
    assert aborted.is_set()
    assert not any(early)


def test_an_upload_given_up_by_somebody_else_is_no_missing_object(
    server: S3Server, network: BadNetwork, prefix: str
) -> None:
    """A store that cleans up while one writes: the error is the upload's, not that of an object that is not there."""
    store, client = opened(prefix), direct(server)

    def clean(request: Request) -> None:
        if request.operation == "complete":
            for upload in client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{prefix}/").get("Uploads", []):
                client.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])

    network.plan = clean
    with pytest.raises(StoreError, match=r"large: another process aborted its upload to ") as caught:
        store.put("large", [bytes(2 * PART)])
    assert not isinstance(caught.value, MissingObject)


@pytest.mark.parametrize("fault", [Fault.INTERNAL, Fault.EMPTY_BODY, Fault.CUT_BODY, Fault.RESET_BODY, Fault.NOBODY])
def test_a_listing_is_complete_or_an_error(server: S3Server, network: BadNetwork, prefix: str, fault: Fault) -> None:
    """A second page that fails at first is had in the end; one that never comes is no end of the list."""
    folder = server.folder / "objects" / BUCKET / prefix
    folder.mkdir()
    names = [f"{number:04d}" for number in range(1_001)]
    for name in names:
        (folder / name).touch()
    harmed = once(fault)
    network.plan = lambda request: harmed(request) if " " in request.key else None
    assert list(opened(prefix).list("")) == names
    assert network.injected[fault] == 1
    network.plan = lambda request: fault if " " in request.key else None
    keys = opened(prefix, budget=0.5).list("")
    assert [next(keys) for _ in range(1_000)] == names[:-1]
    with pytest.raises(StoreError, match="cannot be listed"):
        next(keys)
    shutil.rmtree(folder)


def test_a_store_that_ignores_conditions_is_refused(network: BadNetwork, prefix: str) -> None:
    """The probe sees that a create replaced an object, and says what to do; it leaves nothing behind."""
    network.unconditional = True
    store = opened(prefix)
    with pytest.raises(StoreError, match=r"ignores the condition .* pass --allow-unfenced"):
        check_creates(store)
    assert list(store.list("")) == []


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.RESET, Fault.STALL])
def test_a_bad_network_does_not_mislead_the_probe(network: BadNetwork, prefix: str, fault: Fault) -> None:
    """A store that honours conditions passes, although the answer to the first create was lost."""
    network.plan = once(fault)
    check_creates(opened(prefix))
    assert network.injected[fault] >= 2


def test_no_thread_is_left_behind(network: BadNetwork, prefix: str) -> None:
    """A store that is given up takes its carriers along, also after a failed upload."""
    store = opened(prefix, budget=0.5)
    store.put("large", [bytes(2 * PART)])
    network.plan = always(Fault.SLOW_DOWN, "part")
    with pytest.raises(StoreError):
        store.put("large", [bytes(2 * PART)])
    carriers = [thread for thread in threading.enumerate() if thread.name.startswith("s3_")]
    assert carriers
    del store
    gc.collect()
    for thread in carriers:
        thread.join(PATIENT_SECONDS)
    assert not any(thread.is_alive() for thread in carriers)


def ended(operation: Callable[[], object]) -> object:
    """What an operation returns or raises, which it must."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(operation).result(PATIENT_SECONDS)
