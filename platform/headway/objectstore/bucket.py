"""An S3 bucket: requests with time-outs, retries and a time budget, and boto3's errors translated to Headway's.

boto3 finds endpoint, region and credentials as AWS's own tools do.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from headway.errors import (
    EndpointError,
    ExistingObject,
    MissingObject,
    PastEndError,
    StoreError,
    TransientError,
    UploadAbortedError,
    UsageError,
)
from headway.objectstore.bucket_url import BucketUrl, Limits
from headway.objectstore.object_key import key_names
from headway.objectstore.retry import RetryPolicy

T = TypeVar("T")
TRANSIENT_CODES = {
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout",
    "RequestTimeoutException", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
    "XAmzContentChecksumMismatch",
    "ExistingObjectIsDirectory",  # versitygw, when a delete removes a folder under a writer
}  # fmt: skip
"""Error codes that a retry may clear, besides HTTP status 5xx and 429."""
CREDENTIAL_CODES = (
    "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
    "XAdminUserNotFound",  # versitygw, with status 404
)  # fmt: skip
"""Error codes that mean that the server does not accept the credentials."""
REQUIRED_FIELDS = {
    "complete_multipart_upload": "ETag", "create_multipart_upload": "UploadId", "get_object": "ContentLength",
    "head_object": "ContentLength", "list_objects_v2": "IsTruncated", "put_object": "ETag", "upload_part": "ETag",
}  # fmt: skip
"""Field that every complete response has: boto3 reads a response that broke off before its body as an empty one."""
OWNER = "headway-owner"
"""Metadata key by which a writer recognises its own object after the response was lost."""

TRANSIENT_ERRORS = (
    NoConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError, CredentialRetrievalError, OSError,
    HTTPError,  # urllib3's: boto3 passes some on while it reads a body, such as broken TLS
)  # fmt: skip
"""Exceptions of boto3 and below that a retry may clear."""


class Bucket:
    """One bucket below one prefix; keys are relative to the prefix."""

    def __init__(self, url: str) -> None:
        """Parse `s3://bucket/prefix?limit=value`. Sends no request.

        Raises:
            UsageError: the URL names no bucket, a prefix that is no key, or an unknown limit.
        """
        place = BucketUrl.parse(url)
        self.name, self.prefix, self.limits, self.url = place.name, place.prefix, place.limits, str(place)
        self._policy = RetryPolicy(f"bucket {self.name}", self.limits.budget_seconds)
        self._lock, self._client = threading.Lock(), None
        credentials = "the server rejects these credentials; correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        self._advice = {
            "NoSuchBucket": f"there is no bucket {self.name}; create it, or correct the URL",
            **dict.fromkeys(CREDENTIAL_CODES, f"{credentials}, or AWS_PROFILE"),
        }

    def request(self, verb: str, key: str, operation: str, **fields: Any) -> Any:
        """Send boto3's `operation` on the object `key`, with retries, and return the response.

        `verb` completes the error message "KEY cannot be VERB".

        Raises:
            StoreError: the request failed; a write may have happened or not.
            UsageError: the bucket does not exist, or there are no valid credentials.
        """
        return self.retry(verb, key, lambda: self.request_once(key, operation, **fields))

    def request_once(self, key: str, operation: str, **fields: Any) -> Any:
        """Send an operation without retries and with boto3's own errors; for actions of `retry`."""
        target = {} if operation.startswith("list_") else {"Key": self.prefix + "/".join(key_names(key))}
        response = getattr(self.client, operation)(Bucket=self.name, **target, **fields)
        if operation in REQUIRED_FIELDS and REQUIRED_FIELDS[operation] not in response:
            raise TransientError("the response broke off")
        return response

    def owns(self, owner: str, key: str) -> bool:
        """Whether `owner` wrote the object that is stored under `key`."""
        try:
            return bool(self.request("looked up", key, "head_object").get("Metadata", {}).get(OWNER) == owner)
        except MissingObject:
            return False

    def length(self, key: str) -> int:
        """Length of an object [bytes].

        Reads the first byte: the response to a HEAD has no body, so one that broke off looks like a complete one.
        """

        def first_byte() -> int:
            response = self.request_once(key, "get_object", Range="bytes=0-0")
            if response["Body"].read():
                return int(response["ContentRange"].partition("/")[2])
            if response["ContentLength"]:
                raise TransientError("the response broke off")
            return 0

        try:
            return self.retry("looked up", key, first_byte)
        except PastEndError:  # most servers' response for an empty object
            return 0

    def pages(self, prefix: str, **fields: Any) -> Iterator[Any]:
        """List the objects below `prefix`, page by page, in S3's order."""
        token: dict[str, str] = {}
        while True:
            page = self.request("listed", prefix, "list_objects_v2", Prefix=self.prefix + prefix, **fields, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def uploads(self) -> Iterator[Any]:
        """List the multipart uploads in progress below this bucket's prefix."""
        token: dict[str, str] = {}
        while True:
            page = self.request("listed", "uploads", "list_multipart_uploads", Prefix=self.prefix, **token)
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            token = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def retry(self, verb: str, key: str, action: Callable[[], T]) -> T:
        """Return the result of `action`, with the retries and errors of `request`."""

        def attempt() -> T:
            with _transient_errors():
                return action()

        try:
            return self._policy.call(attempt)
        except TransientError as error:
            raise StoreError(
                f"{key}: cannot be {verb} in {self.url}; retried for {self.limits.budget_seconds:.0f} s: {error}"
            ) from error
        except ClientError as error:
            raise self._translate(verb, key, error) from error
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise UsageError(
                f"{self.url}: {error}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error
        except EndpointError as error:
            raise UsageError(
                f"{self.url}: {error}. Set AWS_ENDPOINT_URL to http://HOST:PORT or https://HOST"
            ) from error
        except BotoCoreError as error:
            raise StoreError(f"{key}: cannot be {verb} in {self.url}: {error}") from error

    @property
    def client(self) -> Any:
        """boto3's client, created at first use under a lock: clients are thread-safe, creating one is not."""
        with self._lock:
            if self._client is None:
                self._client = _connect(self.limits)
            return self._client

    def _translate(self, verb: str, key: str, error: ClientError) -> Exception:
        """Headway's error for an error response."""
        code, status = _code(error), _status(error)
        if code in self._advice:
            return UsageError(f"{self.url}: {self._advice[code]} ({code})")
        if code == "NoSuchUpload":
            return UploadAbortedError(f"{key}: another process aborted its upload to {self.url}; write it again")
        if status == 404 and code in {"", "NoSuchKey"}:
            return MissingObject(f"{key}: no such object in {self.url}")
        if status == 412:
            return ExistingObject(f"{key}: exists already in {self.url}")
        if status in {401, 403}:
            return StoreError(
                f"{key}: may not be {verb} in {self.url} ({code or 'forbidden'}); check the credentials "
                f"(AWS_ACCESS_KEY_ID or AWS_PROFILE), and the rights that docs/run-store.md lists"
            )
        message = error.response.get("Error", {}).get("Message", "")
        return StoreError(f"{key}: cannot be {verb} in {self.url}: {code or status} {message}".rstrip())


def _connect(limits: Limits) -> Any:
    config = Config(
        connect_timeout=limits.timeout_seconds,
        read_timeout=limits.timeout_seconds,
        max_pool_connections=4 * limits.connections,
        retries={"total_max_attempts": 1},  # RetryPolicy retries, within a budget
        response_checksum_validation="when_required",  # readers check stronger checksums of their own
        s3={"payload_signing_enabled": False},  # bodies carry a CRC; SHA-256 would halve the speed
    )
    try:
        session = boto3.session.Session()
        session.events.unregister("before-call.s3", add_expect_header)  # saves a round trip per body
        client = session.client("s3", config=config)
    except ValueError as error:  # boto3's error for an invalid URL
        raise EndpointError(str(error)) from error
    style = (getattr(client.meta.config, "s3", None) or {}).get("addressing_style")
    if "amazonaws.com" in client.meta.endpoint_url or style:
        return client
    path = Config(
        s3={"payload_signing_enabled": False, "addressing_style": "path"}
    )  # few other servers resolve BUCKET.host
    return session.client("s3", config=config.merge(path))


@contextmanager
def _transient_errors() -> Iterator[None]:
    """Raise errors that a retry may clear as `TransientError`, and pass on the others."""
    try:
        yield
    except ClientError as error:
        code, status = _code(error), _status(error)
        if status == 416:
            raise PastEndError from error
        foreign = status == 404 and not code and error.operation_name != "HeadObject"  # S3's 404 has an error code
        if status >= 500 or status == 429 or code in TRANSIENT_CODES or foreign:
            raise TransientError(f"{code or 'an error'} ({status})") from error
        raise
    except SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise
        raise TransientError(str(error)) from error
    except TRANSIENT_ERRORS as error:
        raise TransientError(str(error)) from error


def _code(error: ClientError) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    return "" if code.isdigit() else code


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
