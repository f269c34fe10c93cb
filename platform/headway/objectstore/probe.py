"""Checks the one guarantee that commits rest on: a create-only write fails if the key exists."""

import secrets

from headway.errors import ExistingObject, StoreError
from headway.objectstore.protocol import Store

PREFIX = ".probe/"
"""Prefix of the objects that a probe writes and deletes."""
ALLOW_UNFENCED = ", or, if you are sure that a run never has two writers, pass --allow-unfenced"
"""Alternative to another store, for the error message."""


def check_creates(store: Store, alternative: str = ALLOW_UNFENCED) -> None:
    """Create an object twice and check that the store refuses the second write.

    Raises:
        StoreError: it does not, so two writers could overwrite each other's commits. The message ends with the
            `alternative` to another store.
    """
    key = f"{PREFIX}{secrets.token_hex(8)}"
    store.create(key, b"first")
    try:
        store.create(key, b"second")
    except ExistingObject:
        return
    finally:
        store.delete(key)
    raise StoreError(
        f"{store.url} ignores the condition of a create-only write (If-None-Match: *), so two writers could overwrite "
        f"each other's commits. Use a store that honours it (AWS S3, versitygw, MinIO, Ceph from Squid on)"
        f"{alternative}"
    )
