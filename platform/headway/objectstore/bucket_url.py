"""The URL of an S3 bucket and a prefix in it, with settings of its requests."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from headway.errors import UsageError
from headway.objectstore.object_key import is_key

MEBIBYTE = 1 << 20
BUCKET_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Limits(BaseModel):
    """Settings in a store's URL, as in `s3://bucket/prefix?connections=8`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_seconds: PositiveFloat = 60.0
    """Time for one request with all its retries [s]."""
    timeout_seconds: PositiveFloat = 10.0
    """Longest time without a byte, or without a connection [s]."""
    connections: PositiveInt = 4
    """Parts of an object that are uploaded in parallel."""
    part_bytes: int = Field(default=16 * MEBIBYTE, ge=5 * MEBIBYTE)
    """Size of the parts of a multipart upload [bytes]; S3 accepts none below 5 MiB."""
    whole_bytes: int = Field(default=100 * MEBIBYTE, ge=0, le=5 << 30)
    """Largest object that is uploaded in one request [bytes]; the default is what AWS advises."""


@dataclass(frozen=True)
class BucketUrl:
    """Where objects are in S3: `s3://bucket/prefix?limit=value`; as text, it is parsed to the same again."""

    name: str
    """Name of the bucket."""
    prefix: str
    """Start of each key, with a slash at its end; empty for a whole bucket."""
    limits: Limits

    @classmethod
    def parse(cls, url: str) -> "BucketUrl":
        """Parse a URL.

        Raises:
            UsageError: the URL names no bucket, a prefix that is no key, or an unknown limit.
        """
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        if not BUCKET_NAME.fullmatch(parts.netloc):
            raise UsageError(f"{url}: names no bucket; use s3://BUCKET/PREFIX")
        if parts.fragment or not url.isprintable() or (prefix and not is_key(prefix)):
            raise UsageError(f"{url!r}: a prefix has printable names between single slashes, and no ? or #")
        try:
            limits = Limits.model_validate(dict(parse_qsl(parts.query, strict_parsing=bool(parts.query))))
        except ValueError as error:
            raise UsageError(
                f"{url}: {_first_problem(error)}; settings after the ? are {', '.join(Limits.model_fields)}"
            ) from error
        return cls(parts.netloc, f"{prefix}/" if prefix else "", limits)

    def __str__(self) -> str:
        settings = urlencode(self.limits.model_dump(exclude_defaults=True))
        return f"s3://{self.name}/{self.prefix}".rstrip("/") + (f"?{settings}" if settings else "")


def _first_problem(error: ValueError) -> str:
    """The first problem with the limits, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    return "the text after the ? is not name=value"
