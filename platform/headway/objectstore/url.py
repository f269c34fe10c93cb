"""Opening an object store by its URL."""

from urllib.parse import urlsplit

from headway.errors import UsageError
from headway.objectstore.folder import FolderStore
from headway.objectstore.protocol import Store


def open_store(url: str) -> Store:
    """The store behind `s3://bucket/prefix`, `file:///folder`, or a plain path.

    Raises:
        UsageError: no store is reached by such a URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from headway.objectstore.s3 import S3Store  # imported late: boto3 takes a while to load

        return S3Store(url)
    if parts.scheme == "file" and not parts.netloc:
        return FolderStore(parts.path)
    if not parts.scheme:
        return FolderStore(url)
    raise UsageError(f"{url}: no such kind of store; use s3://bucket/prefix, file:///folder or a path")
