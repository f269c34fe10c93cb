"""Errors of boto3 and urllib3 are sorted into transient ones, which are retried, and permanent ones."""

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
    """A bucket that no request reaches, with a closed circuit."""
    retry.bucket_breakers.clear()
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


def error_response(status: int, code: str, operation: str) -> ClientError:
    """An error response, as boto3 raises it."""
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)  # type: ignore[typeddict-item] # the fields that Headway reads


@pytest.mark.parametrize(
    "error",
    [
        BrokenTLSError("EOF occurred in violation of protocol"),
        SSLError(endpoint_url="u", error=OSError("handshake cut short")),
        CredentialRetrievalError(provider="p", error_msg="busy"),
        ConnectionResetError("reset"),
        error_response(503, "SlowDown", "GetObject"),
        error_response(429, "", "GetObject"),
        error_response(400, "RequestTimeout", "PutObject"),
        error_response(409, "ConditionalRequestConflict", "PutObject"),
        error_response(404, "404", "GetObject"),
    ],
    ids=repr,
)
def test_transient_errors_are_retried(bucket: Bucket, error: Exception) -> None:
    """Broken TLS, busy credentials, throttling, and a 404 that is not from S3."""
    action, calls = failing_first(error)
    assert bucket.retry("read", "key", action) == "answer"
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SSLError(endpoint_url="u", error=OSError("[SSL: CERTIFICATE_VERIFY_FAILED]")), "CERTIFICATE_VERIFY_FAILED"),
        (error_response(403, "AccessDenied", "GetObject"), "may not be read"),
        (error_response(404, "NoSuchThing", "GetObject"), "NoSuchThing"),
        (error_response(404, "NoSuchUpload", "UploadPart"), "another process aborted its upload"),
    ],
    ids=repr,
)
def test_permanent_errors_are_raised_at_once(bucket: Bucket, error: Exception, message: str) -> None:
    """A bad certificate, a missing right, an unknown error: one request, and never reported as a missing object."""
    action, calls = failing_first(error)
    with pytest.raises(StoreError, match=message) as caught:
        bucket.retry("read", "key", action)
    assert len(calls) == 1
    assert not isinstance(caught.value, MissingObject)


@pytest.mark.parametrize(("code", "operation"), [("NoSuchKey", "GetObject"), ("404", "HeadObject")])
def test_s3_reports_a_missing_object_by_code_or_by_head(bucket: Bucket, code: str, operation: str) -> None:
    """A GET has an error code, a HEAD only the status 404."""
    action, _ = failing_first(error_response(404, code, operation))
    with pytest.raises(MissingObject):
        bucket.retry("read", "key", action)


def test_a_response_with_another_range_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that ignores the range and returns the whole object would give wrong bytes."""
    retry.bucket_breakers.clear()
    store = S3Store("s3://nowhere")
    responses: list[dict[str, Any]] = [
        {"ContentLength": 6, "Body": io.BytesIO(b"abcdef")},
        {"ContentLength": 2, "ContentRange": "bytes 2-3/6", "Body": io.BytesIO(b"cd")},
    ]
    monkeypatch.setattr(store.bucket, "request_once", lambda *_, **__: responses.pop(0))
    assert store.get("key", 2, 2) == b"cd"
    assert responses == []
