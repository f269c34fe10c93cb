"""The keys of objects: which texts are keys, in a folder as in a bucket."""

from headway.errors import UsageError

MAX_KEY_BYTES = 1024
"""Longest key [bytes], as in S3."""


def is_key(text: str) -> bool:
    """Whether a text may be a key: printable names between single slashes, none of them `.` or `..`."""
    names = text.split("/")
    return text.isprintable() and not {"", ".", ".."}.intersection(names) and len(text.encode()) <= MAX_KEY_BYTES


def key_names(key: str) -> list[str]:
    """The names that a key consists of.

    Raises:
        UsageError: it is not a key.
    """
    if not is_key(key):
        raise UsageError(f"{key!r} is not an object key")
    return key.split("/")
