"""Key file: the API keys and quotas of tenants. Of a key it stores only the digest.

A key is 256 random bits, so its SHA-256 can be neither guessed nor looked up in a table; no slower digest is needed.
"""

import hashlib
import json
import secrets
import time
from contextlib import AbstractContextManager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headway import strict_json
from headway.errors import UsageError
from headway.localfiles import locked, read_bounded, replacing
from headway.runs.field_types import Digest, Line, Moment, Tokens
from headway.runs.keys import MAX_TOKENS

PREFIX = "hw-"
"""Start of every key, so that people and secret scanners recognize a leaked one."""
ID_DIGITS = 8
"""Digits of the digest that identify a key in lists; they reveal nothing of it."""
MAX_BYTES = 16 << 20
"""Longest key file [bytes]: about 100,000 keys."""
MAX_TENANT_LENGTH = 200
"""Longest name of a new tenant [characters]."""


class ApiKey(BaseModel):
    """One API key as the file stores it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: Line
    """Name of the tenant that it belongs to."""
    sha256: Digest
    """SHA-256 of the key, in hexadecimal digits."""
    created: Moment
    """When it was created [s since 1970]."""

    @property
    def key_id(self) -> str:
        """Id in lists and for `headway keys revoke`."""
        return self.sha256[:ID_DIGITS]


class Quota(BaseModel):
    """Limits of a tenant per minute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: Tokens | None = Field(default=None, ge=1)
    """Most requests per minute; None: no limit."""
    tokens_per_minute: Tokens | None = Field(default=None, ge=1)
    """Most tokens per minute, prompts and completions together; None: no limit."""


class KeyFile(BaseModel):
    """Content of the file of keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: list[ApiKey]
    """All keys that are not revoked."""
    quotas: dict[Line, Quota] = {}
    """Quota by tenant; a tenant without one has no limits."""

    @property
    def tenants(self) -> list[str]:
        """Names of all tenants with a key or a quota, sorted."""
        return sorted({key.tenant for key in self.keys} | set(self.quotas))


class KeyStore:
    """Reads and changes the file of keys. Every change replaces the file as a whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> KeyFile:
        """Read the file; a missing file counts as empty.

        Raises:
            UsageError: it cannot be read, or is not a file of keys.
        """
        try:
            return KeyFile.model_validate(strict_json.parse(read_bounded(self.path, MAX_BYTES)))
        except FileNotFoundError:
            return KeyFile(keys=[])
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UsageError(
                f"{self.path} is not a file of API keys; create one with headway keys add TENANT"
            ) from error

    def add(self, tenant: str) -> str:
        """Create a key for `tenant` and return it. It cannot be read again: the file stores only its digest.

        Raises:
            UsageError: it is not a name for a tenant, or the file cannot be read or replaced.
        """
        if not tenant.isprintable() or not 0 < len(tenant) <= MAX_TENANT_LENGTH:
            raise UsageError(
                f"{tenant!r} is not a name for a tenant; use 1 to {MAX_TENANT_LENGTH} printable characters"
            )
        key = PREFIX + secrets.token_urlsafe(32)
        with self._locked():
            content = self.load()
            new = ApiKey(tenant=tenant, sha256=digest(key), created=round(time.time(), 3))
            self._write(content.model_copy(update={"keys": [*content.keys, new]}))
        return key

    def revoke(self, key_id: str) -> ApiKey:
        """Delete a key and return it. Its tenant keeps its quota, for the next key.

        Raises:
            UsageError: no key has this id; the message lists those that exist.
        """
        with self._locked():
            content = self.load()
            matches = [key for key in content.keys if key.key_id == key_id]
            if not matches:
                existing = ", ".join(f"{key.key_id} ({key.tenant})" for key in content.keys) or "none"
                raise UsageError(f"{self.path} has no key {key_id}; its keys: {existing}")
            others = [key for key in content.keys if key not in matches]
            self._write(content.model_copy(update={"keys": others}))
        return matches[0]

    def limit(self, tenant: str, *, requests: int | None = None, tokens: int | None = None) -> Quota:
        """Change the quota of `tenant` and return it. 0 removes a limit, None keeps it.

        Raises:
            UsageError: a limit is no such number, or the file has neither a key nor a quota of this tenant; the message
                lists those that exist.
        """
        with self._locked():
            content = self.load()
            if tenant not in content.tenants:
                existing = ", ".join(content.tenants) or "none"
                raise UsageError(
                    f"{self.path} has no key for {tenant}; its tenants: {existing}; "
                    f"create a key with headway keys add {tenant}"
                )
            limits = {"requests_per_minute": requests, "tokens_per_minute": tokens}
            before = content.quotas.get(tenant, Quota()).model_dump()
            changes = {name: limit or None for name, limit in limits.items() if limit is not None}
            try:
                quota = Quota.model_validate(before | changes)
            except ValidationError as error:
                raise UsageError(f"a limit is a number from 0 to {MAX_TOKENS:,}; 0 removes it") from error
            others = {name: other for name, other in content.quotas.items() if name != tenant}
            quotas = others if quota == Quota() else others | {tenant: quota}
            self._write(content.model_copy(update={"quotas": quotas}))
        return quota

    def _locked(self) -> AbstractContextManager[None]:
        """Lock out other writers during the block: a lost update could restore a revoked key."""
        return locked(self.path.with_name(f".{self.path.name}.lock"))

    def _write(self, content: KeyFile) -> None:
        """Replace the file. An existing one keeps its owner and mode, so that its readers can still read it."""
        with replacing(self.path, mode=0o600, like_old=True) as file:
            file.write(json.dumps(content.model_dump(exclude_none=True), indent=1).encode())


def digest(key: str) -> str:
    """SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()
