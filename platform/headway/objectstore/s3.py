"""An S3 bucket, or a prefix of one, as an object store."""

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import chain, islice

from headway.errors import ExistingObject, PastEndError, TransientError, UploadAbortedError
from headway.objectstore.bucket import OWNER, Bucket
from headway.objectstore.bucket_url import MEBIBYTE
from headway.objectstore.fast_get import FastGet
from headway.objectstore.multipart import upload
from headway.objectstore.object_body import CHECKSUM, ObjectBody, split
from headway.objectstore.object_key import is_key
from headway.objectstore.protocol import WHOLE_BYTES, Buffer, UnfinishedWrite, get_or_none, too_long

MAX_PARTS = 10_000
"""S3's limit of parts per object."""


class S3Store:
    """Objects of `s3://bucket/prefix`. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self.bucket = Bucket(url)
        self.url = self.bucket.url
        self.readers = 4 * self.bucket.limits.connections  # many, because each waits for the network most of the time

    def put(self, key: str, parts: Iterable[Buffer]) -> None:
        """Write an object, in parallel parts if it is large, replacing an existing one."""
        limits = self.bucket.limits
        length = sum(memoryview(part).nbytes for part in parts) if isinstance(parts, Sequence) else 0
        whole = 0 < length <= limits.whole_bytes
        bodies = split(parts, length if whole else max(limits.part_bytes, -(-length // MAX_PARTS)))
        first_bodies = deque(islice(bodies, 2))
        if len(first_bodies) == 2:
            upload(self.bucket, key, chain(_drain(first_bodies), bodies), self._upload_pool)
        else:
            body = first_bodies.pop() if first_bodies else ObjectBody([])
            self.bucket.retry(
                "written", key, lambda: self.bucket.request_once(key, "put_object", **body.request_fields())
            )

    def create(self, key: str, data: Buffer) -> None:
        """Write an object unless the key exists. An earlier try of this call whose response was lost counts as done."""
        owner = secrets.token_hex(8)
        try:
            self.bucket.request(
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
        byte_range = f"bytes={start}-{last}" if start or length is not None else ""

        def allocate(size: int) -> memoryview:
            if size > (WHOLE_BYTES if length is None else length):
                raise too_long(key, WHOLE_BYTES)
            return memoryview(bytearray(size))

        return b"" if length == 0 else bytes(self._read(key, byte_range, allocate))

    def get_all(self, keys: Iterable[str], limit: int) -> Iterator[bytes | None]:
        """Read small objects in parallel, in the order of `keys`."""
        fast_get = self._fast_get

        def read(key: str) -> bytes | None:
            data = fast_get.get(key, limit)
            return get_or_none(self, key, limit) if data is None else data

        return self._read_pool.map(read, keys)

    def fill(self, key: str, buffer: memoryview, start: int = 0) -> int:
        """Read bytes of an object from `start` on into `buffer`."""
        byte_range = f"bytes={start}-{start + buffer.nbytes - 1}"
        return self._read(key, byte_range, lambda size: buffer[:size]).nbytes if buffer.nbytes else 0

    def size(self, key: str) -> int:
        """Length of an object [bytes]."""
        return self.bucket.length(key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """Keys that start with `prefix`, in S3's order, a page per request."""
        start = {"StartAfter": self.bucket.prefix + after} if after else {}
        yield from (key for key, _ in self._list_objects(prefix, **start))

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys that start with `prefix`, in S3's order, with lengths [bytes]."""
        return self._list_objects(prefix)

    def folders(self, prefix: str) -> Iterator[str]:
        """Distinct names between `prefix` and the next `/`."""
        full_prefix = self.bucket.prefix + prefix
        for page in self.bucket.pages(prefix, Delimiter="/"):
            names = (each["Prefix"].removeprefix(full_prefix)[:-1] for each in page.get("CommonPrefixes", ()))
            yield from filter(is_key, names)

    def strays(self, _prefix: str, *, deep: bool = True) -> Iterator[tuple[str, str]]:
        """Nothing: a bucket holds only objects. Those that are no keys here, such as folder markers, are not listed."""
        del deep
        return iter(())

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """Multipart uploads that were neither completed nor aborted."""
        for each in self.bucket.uploads():
            key = each["Key"].removeprefix(self.bucket.prefix)
            yield UnfinishedWrite(key, each["Initiated"].timestamp(), each["UploadId"], target=key)

    def abort(self, write: UnfinishedWrite) -> None:
        """Abort a multipart upload."""
        with suppress(UploadAbortedError):
            self.bucket.request("aborted", write.key, "abort_multipart_upload", UploadId=write.handle)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.bucket.request("deleted", key, "delete_object")

    @cached_property
    def _fast_get(self) -> FastGet:
        return FastGet(self.bucket)

    @cached_property
    def _read_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.readers, thread_name_prefix="s3")

    @cached_property
    def _upload_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.bucket.limits.connections, thread_name_prefix="s3")

    def _list_objects(self, prefix: str, **fields: str) -> Iterator[tuple[str, int]]:
        for page in self.bucket.pages(prefix, **fields):
            for each in page.get("Contents", ()):
                key = each["Key"].removeprefix(self.bucket.prefix)
                if is_key(key):
                    yield key, each["Size"]

    def _read(self, key: str, byte_range: str, allocate: Callable[[int], memoryview]) -> memoryview:
        """Read a range into the buffer that `allocate` returns for its length. Empty if it begins past the end."""
        deadline = time.monotonic() + self.bucket.limits.budget_seconds
        first = byte_range.removeprefix("bytes=").partition("-")[0]

        def read_once() -> memoryview:
            response = self.bucket.request_once(key, "get_object", **({"Range": byte_range} if byte_range else {}))
            if byte_range and not response.get("ContentRange", "").startswith(f"bytes {first}-"):
                raise TransientError(f"the response is not the range {byte_range}")
            target, position = allocate(response["ContentLength"]), 0
            while position < target.nbytes:
                count = response["Body"].readinto(target[position : position + MEBIBYTE])
                position += count
                if not count:
                    raise TransientError(f"the response ended after {position:,} of {target.nbytes:,} bytes")
                if time.monotonic() > deadline:
                    raise TransientError(f"only {position:,} of {target.nbytes:,} bytes came in time")
            return target

        try:
            return self.bucket.retry("read", key, read_once)
        except PastEndError:
            return allocate(0)


def _drain(bodies: deque[ObjectBody]) -> Iterator[ObjectBody]:
    """Remove and yield each body, so that its memory is free once it was sent."""
    while bodies:
        yield bodies.popleft()
