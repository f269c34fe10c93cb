"""Opens object stores by URL. `open_store(store.url)` is the same store, for every store."""

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from headway.errors import UsageError
from headway.localfiles import local_path
from headway.objectstore.folder import FolderStore
from headway.objectstore.protocol import Store

FILE = "file:"


def open_store(url: str) -> Store:
    """Open the store at `s3://bucket/prefix`, `file:///folder`, or a plain path.

    Raises:
        UsageError: the URL has another scheme, or names no bucket or folder.
    """
    if url.startswith("s3:"):
        from headway.objectstore.s3 import S3Store  # late: boto3 loads slowly

        return S3Store(url)
    if "://" in url and not url.startswith(FILE):
        raise UsageError(f"{url}: unknown kind of store; use s3://bucket/prefix, file:///folder or a path")
    return FolderStore(folder_of(url))


def folder_of(url: str) -> Path:
    """The folder of `file:///folder` or a plain path, in which `~` is the home folder.

    Raises:
        UsageError: there is no such home folder, or it is no URL of a folder on this machine.
    """
    if url.startswith(FILE):
        parts = urlsplit(url)
        if parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
            raise UsageError(f"{url}: use file:///folder, in which ? is %3F, # is %23 and % is %25")
        path = Path(os.fsdecode(unquote_to_bytes(parts.path)))
    else:
        path = local_path(url)
    if not url or "\0" in str(path):
        raise UsageError(f"{url!r}: is no folder")
    return path.absolute()
