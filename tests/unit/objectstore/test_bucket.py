"""What boto3 and urllib3 raise is told apart: what may pass, and what will not."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, CredentialRetrievalError, SSLError
from urllib3.exceptions import SSLError as BrokenTLSError

from headway.errors import MissingObject, StoreError
from headway.objectstore import retry
from headway.objectstore.bucket import Bucket
from headway.objectstore.s3 import S3Store


@pytest.fixture
def bucket() -> Bucket:
    """A bucket that is never asked; its breaker is closed."""
    retry.bucket_breaker.cache_clear()
    return Bucket("s3://nowhere")


def failing_first(error: Exception) -> tuple[Callable[[], str], list[int]]:
    """An action that fails once, and the list of its calls."""
    calls: list[int] = []

    def action() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return "answer"

    return action, calls


def answer(status: int, code: str, operation: str) -> ClientError:
    """An answer with an error, as boto3 raises it."""
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)  # type: ignore[typeddict-item] # what Headway reads of it


@pytest.mark.parametrize(
    "error",
    [
        BrokenTLSError("EOF occurred in violation of protocol"),
        SSLError(endpoint_url="u", error=OSError("handshake cut short")),
        CredentialRetrievalError(provider="p", error_msg="busy"),
        ConnectionResetError("reset"),
        answer(503, "SlowDown", "GetObject"),
        answer(429, "", "GetObject"),
        answer(400, "RequestTimeout", "PutObject"),
        answer(409, "ConditionalRequestConflict", "PutObject"),
        answer(404, "404", "GetObject"),
    ],
    ids=repr,
)
def test_what_may_pass_is_asked_again(bucket: Bucket, error: Exception) -> None:
    """Broken TLS, busy credentials, a refusal for now, a 404 of somebody who is no S3 server."""
    action, calls = failing_first(error)
    assert bucket.persist("read", "key", action) == "answer"
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SSLError(endpoint_url="u", error=OSError("[SSL: CERTIFICATE_VERIFY_FAILED]")), "CERTIFICATE_VERIFY_FAILED"),
        (answer(403, "AccessDenied", "GetObject"), "may not be read"),
        (answer(404, "NoSuchThing", "GetObject"), "NoSuchThing"),
        (answer(404, "NoSuchUpload", "UploadPart"), "given up by somebody else"),
    ],
    ids=repr,
)
def test_what_will_not_pass_is_said_at_once(bucket: Bucket, error: Exception, said: str) -> None:
    """A certificate, a right, a thing that is unknown: asked once, and never taken for a missing object."""
    action, calls = failing_first(error)
    with pytest.raises(StoreError, match=said) as caught:
        bucket.persist("read", "key", action)
    assert len(calls) == 1
    assert not isinstance(caught.value, MissingObject)


@pytest.mark.parametrize(("code", "operation"), [("NoSuchKey", "GetObject"), ("404", "HeadObject")])
def test_a_missing_object_is_what_s3_says_is_missing(bucket: Bucket, code: str, operation: str) -> None:
    """By its code where there is one; a HEAD has none."""
    action, _ = failing_first(answer(404, code, operation))
    with pytest.raises(MissingObject):
        bucket.persist("read", "key", action)


def test_a_range_that_was_not_asked_for_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that ignores the range and answers with the whole object is asked again: the bytes would be wrong."""
    retry.bucket_breaker.cache_clear()
    store = S3Store("s3://nowhere")
    answers: list[dict[str, Any]] = [
        {"ContentLength": 6, "Body": io.BytesIO(b"abcdef")},
        {"ContentLength": 2, "ContentRange": "bytes 2-3/6", "Body": io.BytesIO(b"cd")},
    ]
    monkeypatch.setattr(store.bucket, "send", lambda *_, **__: answers.pop(0))
    assert store.get("key", 2, 2) == b"cd"
    assert answers == []
