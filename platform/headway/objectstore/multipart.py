"""Multipart upload of a large object, several parts in parallel. The object appears whole or not at all."""

import secrets
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from headway.errors import StoreError, UploadAbortedError
from headway.objectstore.bucket import OWNER, Bucket
from headway.objectstore.object_body import CHECKSUM, ObjectBody


def upload(bucket: Bucket, key: str, bodies: Iterable[ObjectBody], pool: ThreadPoolExecutor) -> None:
    """Write an object from the bodies of its parts, in order. Holds one body more than there are connections.

    Raises:
        StoreError: the object was not written; no part is left behind if the store still responds.
    """
    owner, length = secrets.token_hex(8), 0
    upload_id: str = bucket.request(
        "written",
        key,
        "create_multipart_upload",
        ChecksumAlgorithm=CHECKSUM,
        ChecksumType="FULL_OBJECT",
        Metadata={OWNER: owner},
    )["UploadId"]

    def upload_part(number: int, body: ObjectBody) -> dict[str, Any]:
        target = {"UploadId": upload_id, "PartNumber": number}
        response = bucket.retry(
            f"written (part {number})",
            key,
            lambda: bucket.request_once(key, "upload_part", **target, **body.request_fields()),
        )
        checks = {name: response[name] for name in ("ETag", f"Checksum{CHECKSUM}") if name in response}
        return {"PartNumber": number, **checks}

    parts: list[dict[str, Any]] = []
    pending: deque[Future[dict[str, Any]]] = deque()
    try:
        for number, body in enumerate(bodies, 1):
            length += body.length
            pending.append(pool.submit(upload_part, number, body))
            if len(pending) > bucket.limits.connections:
                parts.append(pending.popleft().result())
        parts += [part.result() for part in pending]
        _complete(bucket, key, upload_id, parts, owner)
    except BaseException:
        wait([part for part in pending if not part.cancel()])  # a part that arrives after the abort would stay forever
        _abort(bucket, key, upload_id)
        raise
    stored_length = bucket.length(key)
    if stored_length != length:
        raise StoreError(
            f"{key}: {bucket.url} stored {stored_length:,} of {length:,} bytes and reported success; use another store"
        )


def _complete(bucket: Bucket, key: str, upload_id: str, parts: list[dict[str, Any]], owner: str) -> None:
    """Assemble the parts into the object. `owner` recognises an object whose response was lost."""
    try:
        bucket.request(
            "completed",
            key,
            "complete_multipart_upload",
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            ChecksumType="FULL_OBJECT",
        )
    except UploadAbortedError:
        if not bucket.owns(owner, key):
            raise


def _abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """Free the parts of a failed upload, if the store responds. An error here must not hide the first one."""
    try:
        bucket.request("aborted", key, "abort_multipart_upload", UploadId=upload_id)
    except StoreError:
        return
