"""A large object on its way into a bucket, in parts that travel side by side. It appears whole or not at all."""

import secrets
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from headway.errors import StoreError, UploadAbortedError
from headway.objectstore.bucket import OWNER, Bucket
from headway.objectstore.object_body import CHECKSUM, ObjectBody


def upload(bucket: Bucket, key: str, pieces: Iterable[ObjectBody], carriers: ThreadPoolExecutor) -> None:
    """Write an object from its parts, in their order; holds one for each of the `carriers`, and one.

    Raises:
        StoreError: it could not be written; no part is left behind if the store still answers.
    """
    owner, length = secrets.token_hex(8), 0
    begun = bucket.ask(
        "written",
        key,
        "create_multipart_upload",
        ChecksumAlgorithm=CHECKSUM,
        ChecksumType="FULL_OBJECT",
        Metadata={OWNER: owner},
    )

    def send(number: int, piece: ObjectBody) -> dict[str, Any]:
        place = {"UploadId": begun["UploadId"], "PartNumber": number}
        answer = bucket.persist(
            f"written (part {number})", key, lambda: bucket.send(key, "upload_part", **place, **piece.fields())
        )
        kept = {name: answer[name] for name in ("ETag", f"Checksum{CHECKSUM}") if name in answer}
        return {"PartNumber": number, **kept}

    sent: list[dict[str, Any]] = []
    on_the_way: deque[Future[dict[str, Any]]] = deque()
    try:
        for number, piece in enumerate(pieces, 1):
            length += piece.length
            on_the_way.append(carriers.submit(send, number, piece))
            if len(on_the_way) > bucket.limits.connections:
                sent.append(on_the_way.popleft().result())
        sent += [part.result() for part in on_the_way]
        _complete(bucket, key, begun["UploadId"], sent, owner)
    except BaseException:
        wait([part for part in on_the_way if not part.cancel()])  # one that arrived after the end would stay for ever
        _abort(bucket, key, begun["UploadId"])
        raise
    there = bucket.length(key)
    if there != length:
        raise StoreError(
            f"{key}: {bucket.url} kept {there:,} of {length:,} bytes and called it done; use another store"
        )


def _complete(bucket: Bucket, key: str, upload_id: str, parts: list[dict[str, Any]], owner: str) -> None:
    """Make an object of the parts; one that was made although the answer was lost is known by its owner."""
    try:
        bucket.ask(
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
    """Free the parts of an upload that came to nothing, if the store lets us: the first error is what counts."""
    try:
        bucket.ask("given up", key, "abort_multipart_upload", UploadId=upload_id)
    except StoreError:
        return
