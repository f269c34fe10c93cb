"""Opens object stores by URL."""

from urllib.parse import urlsplit

from headway.errors import UsageError
from headway.objectstore.folder import FolderStore
from headway.objectstore.protocol import Store


def open_store(url: str) -> Store:
    """Open the store at `s3://bucket/prefix`, `file:///folder`, or a plain path.

    Raises:
        UsageError: the URL has another scheme.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from headway.objectstore.s3 import S3Store  # late: boto3 loads slowly

        return S3Store(url)
    if parts.scheme == "file" and not parts.netloc:
        return FolderStore(parts.path)
    if not parts.scheme:
        return FolderStore(url)
    raise UsageError(f"{url}: unknown kind of store; use s3://bucket/prefix, file:///folder or a path")
