"""Look-up of tenants by key and of quotas by tenant, in the key file as it is now."""

import hmac
import time
from collections.abc import Callable

from headway.errors import UsageError
from headway.events.serving_events import KeysUnreadable
from headway.serve.tenants.key_file import KeyStore, Quota, digest
from headway.telemetry import open_log

POLL_SECONDS = 1.0
"""Shortest time between two checks of the file [s]."""


class Tenants:
    """Looks up tenants by key and quotas by tenant. Follows changes of the file without a restart."""

    def __init__(self, store: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        """Load the file. A later version that cannot be read is ignored.

        Raises:
            UsageError: it is not a file of keys.
        """
        self._store, self._clock = store, clock
        self._log = open_log()
        self._version, self._check_time = self._file_version(), clock()
        self._content = store.load()

    def tenant_of(self, key: str) -> str | None:
        """Name of the tenant with this key; None if there is none. Every wrong key takes equally long."""
        self._reload()
        sha256, tenant = digest(key), None
        for existing in self._content.keys:
            if hmac.compare_digest(sha256, existing.sha256):
                tenant = existing.tenant
        return tenant

    def quota_of(self, tenant: str) -> Quota | None:
        """Quota of a tenant; None if it has no limits."""
        self._reload()
        return self._content.quotas.get(tenant)

    def _reload(self) -> None:
        """Load the file again if it has changed; checks at most every `POLL_SECONDS`."""
        if self._clock() - self._check_time < POLL_SECONDS:
            return
        self._check_time = self._clock()
        if (version := self._file_version()) != self._version:
            try:
                self._content, self._version = self._store.load(), version
            except (UsageError, OSError) as error:
                self._log.write(KeysUnreadable(problem=str(error), action="the previous keys stay in force"))

    def _file_version(self) -> tuple[int, int] | None:
        """Inode and modification time of the file [ns]: they change with every change of the file."""
        try:
            status = self._store.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns
