"""A double of a full disk: no file may be longer than a limit, so `write`, or at the latest `flush`, fails."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def short_files(most: int) -> Iterator[None]:
    """No file of this process may be longer than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
