"""A large object on its way into a bucket, in parts that travel side by side. It appears whole or not at all."""

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from headway.errors import StoreError
from headway.store.bucket import OWNER, Bucket, GivenUpError

MOST_PARTS = 10_000
"""Parts that S3 lets an object have."""
CHECKSUM = "CRC64NVME"
"""What the server checks each body against and keeps with the object; it costs a thousandth of the time."""


def upload(bucket: Bucket, key: str, views: Sequence[memoryview], carriers: ThreadPoolExecutor) -> None:
    """Write an object from `views`, the parts sent by `carriers`; holds one part in memory for each of them.

    Raises:
        StoreError: it could not be written; no part is left behind if the store still answers.
    """
    length, owner = sum(view.nbytes for view in views), secrets.token_hex(8)
    part_bytes = max(bucket.limits.part_bytes, -(-length // MOST_PARTS))
    begun = bucket.ask(
        "written",
        key,
        "create_multipart_upload",
        ChecksumAlgorithm=CHECKSUM,
        ChecksumType="FULL_OBJECT",
        Metadata={OWNER: owner},
    )

    def send(number: int) -> dict[str, Any]:
        answer = bucket.ask(
            f"written (part {number})",
            key,
            "upload_part",
            UploadId=begun["UploadId"],
            PartNumber=number,
            Body=cut(views, (number - 1) * part_bytes, part_bytes),
            ChecksumAlgorithm=CHECKSUM,
        )
        kept = {name: answer[name] for name in ("ETag", f"Checksum{CHECKSUM}") if name in answer}
        return {"PartNumber": number, **kept}

    sent = [carriers.submit(send, number) for number in range(1, -(-length // part_bytes) + 1)]
    try:
        _complete(bucket, key, begun["UploadId"], [part.result() for part in sent], owner)
    except BaseException:
        wait([part for part in sent if not part.cancel()])  # one that arrived after the end would stay for ever
        _abort(bucket, key, begun["UploadId"])
        raise
    there = bucket.length(key)
    if there != length:
        raise StoreError(
            f"{key}: {bucket.url} kept {there:,} of {length:,} bytes and called it done; use another store"
        )


def cut(views: Sequence[memoryview], start: int, length: int) -> bytes:
    """Bytes `start` to `start + length` of `views` joined."""
    taken, at = [], 0
    for view in views:
        low, high = max(start - at, 0), min(start + length - at, view.nbytes)
        if low < high:
            taken.append(view[low:high])
        at += view.nbytes
    return b"".join(taken)


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
    except GivenUpError:
        if not bucket.owns(owner, key):
            raise


def _abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """Free the parts of an upload that came to nothing, if the store lets us: the first error is what counts."""
    try:
        bucket.ask("given up", key, "abort_multipart_upload", UploadId=upload_id)
    except StoreError:
        return
