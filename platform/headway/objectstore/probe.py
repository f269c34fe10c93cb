"""Whether a store keeps the one promise that everything rests on: that a create-only write creates only."""

import secrets

from headway.errors import ExistingObject, StoreError
from headway.objectstore.protocol import Store

PREFIX = ".probe/"
"""Where the objects of probes lie, for a moment each."""
WAY_AROUND = ", or, if you are sure that a run never has two writers, pass --allow-unfenced"


def check_creates(store: Store, way_around: str = WAY_AROUND) -> None:
    """Create an object twice, and see that the second is refused.

    `way_around` ends the message: what else than another store there is.

    Raises:
        StoreError: it was not, so two writers could both believe that they committed; says what to do.
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
        f"{way_around}"
    )
