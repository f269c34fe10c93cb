"""A bucket of a server that speaks S3: the one door to boto3.

Endpoint, region and credentials are found as AWS's own tools find them. Every request has a time-out, retries and a
budget, and every error of boto3 becomes one of ours here.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

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
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
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
from headway.objectstore.retry import RetryPolicy

T = TypeVar("T")
MEBIBYTE = 1 << 20
TRANSIENT_CODES = {
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "OperationAborted", "RequestTimeout",
    "RequestTimeoutException", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
    "XAmzContentChecksumMismatch",
    "ExistingObjectIsDirectory",  # versitygw's word where a delete took a folder away under a writer
}  # fmt: skip
"""Error codes that may be gone when one asks again, besides all of HTTP's 5xx and 429."""
CREDENTIAL_CODES = (
    "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired",
    "XAdminUserNotFound",  # versitygw's word, with status 404
)  # fmt: skip
"""Error codes of a server that does not know who asks."""
REQUIRED_FIELDS = {
    "complete_multipart_upload": "ETag", "create_multipart_upload": "UploadId", "get_object": "ContentLength",
    "head_object": "ContentLength", "list_objects_v2": "IsTruncated", "put_object": "ETag", "upload_part": "ETag",
}  # fmt: skip
"""What an answer that came whole holds: boto3 takes one that broke off before its first byte for an empty one."""
OWNER = "headway-owner"
"""Metadata key by which a writer knows its own object, although the answer was lost."""


TRANSIENT_ERRORS = (
    NoConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError, CredentialRetrievalError, OSError,
    HTTPError,  # of urllib3: boto3 lets some through while a body is read, such as TLS that breaks off
)  # fmt: skip


class Limits(BaseModel):
    """What one may set in a store's URL, as in `s3://bucket/prefix?connections=8`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_seconds: PositiveFloat = 60.0
    """For one request with all its retries."""
    timeout_seconds: PositiveFloat = 10.0
    """Without a byte, or without a connection."""
    connections: PositiveInt = 4
    """Parts of an object that travel side by side."""
    part_bytes: int = Field(default=16 * MEBIBYTE, ge=5 * MEBIBYTE)
    """What goes up in parts goes in parts of this size; S3 takes no smaller ones."""
    whole_bytes: int = Field(default=100 * MEBIBYTE, ge=0, le=5 << 30)
    """What is known to be no longer goes up in one request, as AWS advises: a server has less to do."""


class Bucket:
    """One bucket below one prefix; keys are relative to it."""

    def __init__(self, url: str) -> None:
        """Take `s3://bucket/prefix?limit=value` apart; nothing is asked of the server yet.

        Raises:
            UsageError: the URL names no bucket, or an unknown limit.
        """
        parts = urlsplit(url)
        if not parts.netloc:
            raise UsageError(f"{url}: names no bucket; use s3://BUCKET/PREFIX")
        try:
            self.limits = Limits.model_validate(dict(parse_qsl(parts.query, strict_parsing=bool(parts.query))))
        except ValueError as error:
            raise UsageError(
                f"{url}: {_first(error)}; after the ? may stand {', '.join(Limits.model_fields)}"
            ) from error
        self.name, prefix = parts.netloc, parts.path.strip("/")
        self.prefix = f"{prefix}/" if prefix else ""
        chosen = urlencode(self.limits.model_dump(exclude_defaults=True))
        self.url = f"s3://{self.name}/{prefix}".rstrip("/") + (f"?{chosen}" if chosen else "")
        self._patience = RetryPolicy(f"bucket {self.name}", self.limits.budget_seconds)
        self._lock, self._client = threading.Lock(), None
        stranger = "these credentials are not accepted; correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        self._advice = {
            "NoSuchBucket": f"there is no bucket {self.name}; create it, or correct the URL",
            **dict.fromkeys(CREDENTIAL_CODES, f"{stranger}, or AWS_PROFILE"),
        }

    def ask(self, done: str, key: str, request: str, **fields: Any) -> Any:
        """What the server answers to `request` about the object `key`, asked again where that may help.

        `done` says for messages what would have been: it cannot be `done`.

        Raises:
            StoreError: or one of its kinds; nobody knows then whether a write was made.
            UsageError: there is no such bucket, or there are no credentials.
        """
        return self.persist(done, key, lambda: self.send(key, request, **fields))

    def send(self, key: str, request: str, **fields: Any) -> Any:
        """Ask once; for use inside of `persist`."""
        whose = {} if request.startswith("list_") else {"Key": self.prefix + key}
        answer = getattr(self.client, request)(Bucket=self.name, **whose, **fields)
        if request in REQUIRED_FIELDS and REQUIRED_FIELDS[request] not in answer:
            raise TransientError("the answer broke off")
        return answer

    def owns(self, owner: str, key: str) -> bool:
        """Whether the object that is there is the one that `owner` wrote."""
        try:
            return bool(self.ask("looked up", key, "head_object").get("Metadata", {}).get(OWNER) == owner)
        except MissingObject:
            return False

    def length(self, key: str) -> int:
        """Length of an object [bytes].

        Its first byte is asked for: nothing tells a HEAD's answer, which has no body, from one that broke off or from
        anybody's.
        """

        def once() -> int:
            answer = self.send(key, "get_object", Range="bytes=0-0")
            if answer["Body"].read():
                return int(answer["ContentRange"].partition("/")[2])
            if answer["ContentLength"]:
                raise TransientError("the answer broke off")
            return 0

        try:
            return self.persist("looked up", key, once)
        except PastEndError:  # most servers' answer where there is no first byte
            return 0

    def pages(self, prefix: str, **fields: Any) -> Iterator[Any]:
        """The pages of a listing of objects below `prefix`, in S3's order."""
        token: dict[str, str] = {}
        while True:
            page = self.ask("listed", prefix, "list_objects_v2", Prefix=self.prefix + prefix, **fields, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def uploads(self) -> Iterator[Any]:
        """The uploads in parts below this prefix that were begun and neither completed nor aborted."""
        token: dict[str, str] = {}
        while True:
            page = self.ask("listed", "uploads", "list_multipart_uploads", Prefix=self.prefix, **token)
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            token = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def persist(self, done: str, key: str, action: Callable[[], T]) -> T:
        """What `action` returns; see `ask`."""

        def once() -> T:
            with _sorted_out():
                return action()

        try:
            return self._patience.ask(once)
        except TransientError as error:
            raise StoreError(
                f"{key}: cannot be {done} in {self.url}; asked for {self.limits.budget_seconds:.0f} s: {error}"
            ) from error
        except ClientError as error:
            raise self._translated(done, key, error) from error
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise UsageError(
                f"{self.url}: {error}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ) from error
        except EndpointError as error:
            raise UsageError(
                f"{self.url}: {error}. Set AWS_ENDPOINT_URL to http://HOST:PORT or https://HOST"
            ) from error
        except BotoCoreError as error:
            raise StoreError(f"{key}: cannot be {done} in {self.url}: {error}") from error

    @property
    def client(self) -> Any:
        """boto3's client, made when it is first needed; safe to use from several threads, as its making is not."""
        with self._lock:
            if self._client is None:
                self._client = _connect(self.limits)
            return self._client

    def _translated(self, done: str, key: str, error: ClientError) -> Exception:
        """What an answer of the server means to Headway."""
        code, status = _code(error), _status(error)
        if code in self._advice:
            return UsageError(f"{self.url}: {self._advice[code]} ({code})")
        if code == "NoSuchUpload":
            return UploadAbortedError(f"{key}: its upload to {self.url} was given up by somebody else; write it again")
        if status == 404 and code in {"", "NoSuchKey"}:
            return MissingObject(f"{key}: no such object in {self.url}")
        if status == 412:
            return ExistingObject(f"{key}: exists already in {self.url}")
        if status in {401, 403}:
            return StoreError(
                f"{key}: may not be {done} in {self.url} ({code or 'forbidden'}); check the credentials "
                f"(AWS_ACCESS_KEY_ID or AWS_PROFILE), and the rights that docs/run-store.md lists"
            )
        said = error.response.get("Error", {}).get("Message", "")
        return StoreError(f"{key}: cannot be {done} in {self.url}: {code or status} {said}".rstrip())


def _connect(limits: Limits) -> Any:
    config = Config(
        connect_timeout=limits.timeout_seconds,
        read_timeout=limits.timeout_seconds,
        max_pool_connections=4 * limits.connections,
        retries={"total_max_attempts": 1},  # ours have a budget
        response_checksum_validation="when_required",  # whoever reads has a better one
        s3={"payload_signing_enabled": False},  # a checksum goes along; SHA-256 would halve the speed
    )
    try:
        session = boto3.session.Session()
        session.events.unregister("before-call.s3", add_expect_header)  # no body here is worth a question before it
        client = session.client("s3", config=config)
    except ValueError as error:  # boto3's word for a URL that is none
        raise EndpointError(str(error)) from error
    style = (getattr(client.meta.config, "s3", None) or {}).get("addressing_style")
    if "amazonaws.com" in client.meta.endpoint_url or style:
        return client
    path = Config(s3={"payload_signing_enabled": False, "addressing_style": "path"})  # few others answer at BUCKET.host
    return session.client("s3", config=config.merge(path))


@contextmanager
def _sorted_out() -> Iterator[None]:
    """Tell errors that may pass from those that will not."""
    try:
        yield
    except ClientError as error:
        code, status = _code(error), _status(error)
        if status == 416:
            raise PastEndError from error
        strange = status == 404 and not code and error.operation_name != "HeadObject"  # S3 says what is not there
        if status >= 500 or status == 429 or code in TRANSIENT_CODES or strange:
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


def _first(error: ValueError) -> str:
    """What is wrong with the limits, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    return "what follows the ? is not name=value"
