"""A bucket, or a prefix of one, as an object store."""

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import chain, islice

from headway.errors import ExistingObject, PastEndError, TransientError, UploadAbortedError
from headway.objectstore.bucket import MEBIBYTE, OWNER, Bucket
from headway.objectstore.fast_get import FastGet
from headway.objectstore.multipart import upload
from headway.objectstore.object_body import CHECKSUM, ObjectBody, cut
from headway.objectstore.protocol import Buffer, Unfinished, get_or_none

MOST_PARTS = 10_000
"""Parts that S3 lets an object have."""


class S3Store:
    """Objects of `s3://bucket/prefix`. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self.bucket = Bucket(url)
        self.url = self.bucket.url

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object whole, in parts if it is large, replacing any that was there."""
        limits = self.bucket.limits
        length = sum(memoryview(part).nbytes for part in parts) if isinstance(parts, Sequence) else 0
        whole = 0 < length <= limits.whole_bytes
        rest = cut(parts, length if whole else max(limits.part_bytes, -(-length // MOST_PARTS)))
        begin = deque(islice(rest, 2))
        if len(begin) == 2:
            upload(self.bucket, key, chain(_given_away(begin), rest), self._carriers)
        else:
            body = begin.pop() if begin else ObjectBody([])
            self.bucket.persist("written", key, lambda: self.bucket.send(key, "put_object", **body.fields()))

    def create(self, key: str, data: Buffer) -> None:
        """Write an object whole, only if there is none of that key; one's own, of a lost answer, is none."""
        owner = secrets.token_hex(8)
        try:
            self.bucket.ask(
                "written",
                key,
                "put_object",
                Body=bytes(data),
                ChecksumAlgorithm=CHECKSUM,
                IfNoneMatch="*",
                Metadata={OWNER: owner},
            )
        except ExistingObject:
            if not self.bucket.owns(owner, key):
                raise

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or a range of it."""
        last = "" if length is None else start + length - 1
        span = f"bytes={start}-{last}" if start or length is not None else ""
        return b"" if length == 0 else bytes(self._read(key, span, lambda size: memoryview(bytearray(size))))

    def get_all(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """Read small objects, in their order, side by side."""
        shortcut = self._shortcut

        def one(key: str) -> bytes | None:
            data = shortcut.get(key)
            return get_or_none(self, key) if data is None else data

        return self._readers.map(one, keys)

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object from `start` on into `buffer`."""
        span = f"bytes={start}-{start + buffer.nbytes - 1}"
        return self._read(key, span, lambda size: buffer[:size]).nbytes if buffer.nbytes else 0

    def size(self, key: str) -> int:
        """Length of an object [bytes]."""
        return self.bucket.length(key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys below `prefix`, in S3's order, a page at a time."""
        since = {"StartAfter": self.bucket.prefix + after} if after else {}
        yield from (key for key, _ in self._listed(prefix, **since))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys below `prefix`, in S3's order, with lengths."""
        return self._listed(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """The names that follow `prefix` up to the next `/`."""
        whole = self.bucket.prefix + prefix
        for page in self.bucket.pages(prefix, Delimiter="/"):
            yield from (each["Prefix"].removeprefix(whole)[:-1] for each in page.get("CommonPrefixes", ()))

    def unfinished(self) -> Iterator[Unfinished]:
        """Uploads in parts that were neither completed nor aborted."""
        for each in self.bucket.uploads():
            key = each["Key"].removeprefix(self.bucket.prefix)
            yield Unfinished(key, each["Initiated"].timestamp(), each["UploadId"])

    def discard(self, unfinished: Unfinished) -> None:
        """Abort such an upload."""
        with suppress(UploadAbortedError):
            self.bucket.ask("given up", unfinished.what, "abort_multipart_upload", UploadId=unfinished.handle)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.bucket.ask("deleted", key, "delete_object")

    @cached_property
    def _shortcut(self) -> FastGet:
        return FastGet(self.bucket)

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(
            4 * self.bucket.limits.connections, thread_name_prefix="s3"
        )  # small: no memory to mind

    @cached_property
    def _carriers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.bucket.limits.connections, thread_name_prefix="s3")

    def _listed(self, prefix: str, **since: str) -> Iterator[tuple[str, int]]:
        for page in self.bucket.pages(prefix, **since):
            yield from (
                (each["Key"].removeprefix(self.bucket.prefix), each["Size"]) for each in page.get("Contents", ())
            )

    def _read(self, key: str, span: str, room: Callable[[int], memoryview]) -> memoryview:
        """Read a range into the room made for its length; nothing if it begins behind the object's end."""
        deadline = time.monotonic() + self.bucket.limits.budget_seconds
        first = span.removeprefix("bytes=").partition("-")[0]

        def once() -> memoryview:
            answer = self.bucket.send(key, "get_object", **({"Range": span} if span else {}))
            if span and not answer.get("ContentRange", "").startswith(f"bytes {first}-"):
                raise TransientError(f"the answer is not the range {span}")
            target, at = room(answer["ContentLength"]), 0
            while at < target.nbytes:
                got = answer["Body"].readinto(target[at : at + MEBIBYTE])
                at += got
                if not got:
                    raise TransientError(f"the answer was cut short after {at:,} of {target.nbytes:,} bytes")
                if time.monotonic() > deadline:
                    raise TransientError(f"only {at:,} of {target.nbytes:,} bytes came in time")
            return target

        try:
            return self.bucket.persist("read", key, once)
        except PastEndError:
            return room(0)


def _given_away(bodies: deque[ObjectBody]) -> Iterator[ObjectBody]:
    """Each of `bodies`, which nobody here holds any more: its memory is free once it has been sent."""
    while bodies:
        yield bodies.popleft()
