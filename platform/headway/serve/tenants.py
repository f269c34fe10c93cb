"""Who may ask, and how much: tenants, their API keys, of which only digests are kept, and their quotas.

A key is 256 random bits, so its SHA-256 can neither be guessed nor looked up in a table; no slower digest is needed.
"""

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headway.errors import UsageError
from headway.telemetry import open_log

PREFIX = "hw-"
"""What a key begins with, so that one that got where it should not be is recognised."""
SHOWN = 8
"""Digits of a digest by which a key is called: they tell nothing of it."""
LOOK_SECONDS = 1.0
"""How often the file is looked at for a change [s]."""


class Key(BaseModel):
    """One API key, as it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: str
    sha256: str
    created: float
    """Seconds since 1970."""

    @property
    def name(self) -> str:
        """What it is called where it is listed and revoked."""
        return self.sha256[:SHOWN]


class Quota(BaseModel):
    """What a tenant may use by the minute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int | None = Field(default=None, ge=1)
    """None: as many as it likes."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Of prompts and answers together; None: as many as it likes."""


class KeyFile(BaseModel):
    """All that is kept of tenants, as it stands in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: list[Key]
    quotas: dict[str, Quota] = {}
    """By tenant; one that is not here may use as much as it likes."""

    @property
    def tenants(self) -> list[str]:
        """All of whom something is kept."""
        return sorted({key.tenant for key in self.keys} | set(self.quotas))


class KeyStore:
    """The keys and quotas in a file, which is replaced whole and may change at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> KeyFile:
        """All that is in the file; nothing if there is none yet.

        Raises:
            UsageError: it is no file of keys.
        """
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return KeyFile(keys=[])
        try:
            return KeyFile.model_validate_json(text)
        except ValidationError as error:
            raise UsageError(f"{self.path} is no file of API keys; headway keys add TENANT makes one") from error

    def read(self) -> list[Key]:
        """All keys; none if there is no file yet.

        Raises:
            UsageError: it is no file of keys.
        """
        return self.load().keys

    def add(self, tenant: str) -> str:
        """Make a key for `tenant`; returns it, which is the only time that anybody sees it."""
        key = PREFIX + secrets.token_urlsafe(32)
        with self._alone():
            roll = self.load()
            new = Key(tenant=tenant, sha256=digest(key), created=round(time.time(), 3))
            self._write(roll.model_copy(update={"keys": [*roll.keys, new]}))
        return key

    def revoke(self, name: str) -> Key:
        """Take a key away, by its name. Its tenant's quota stays, for the key that comes in its place.

        Raises:
            UsageError: there is none of that name; says which there are.
        """
        with self._alone():
            roll = self.load()
            found = [key for key in roll.keys if key.name == name]
            if not found:
                there = ", ".join(f"{key.name} ({key.tenant})" for key in roll.keys) or "none"
                raise UsageError(f"no key is called {name} in {self.path}; there: {there}")
            self._write(roll.model_copy(update={"keys": [key for key in roll.keys if key not in found]}))
        return found[0]

    def limit(self, tenant: str, *, requests: int | None = None, tokens: int | None = None) -> Quota:
        """Set what `tenant` may use by the minute; 0 takes a limit away, None leaves it. Returns what is in force.

        Raises:
            UsageError: nothing is kept of such a tenant, which may be a slip of the pen; says of whom something is.
        """
        with self._alone():
            roll = self.load()
            if tenant not in roll.tenants:
                there = ", ".join(roll.tenants) or "none"
                raise UsageError(
                    f"{self.path} has no key for {tenant}; there: {there}; headway keys add {tenant} makes one"
                )
            given = {"requests_per_minute": requests, "tokens_per_minute": tokens}
            before = roll.quotas.get(tenant, Quota()).model_dump()
            changes = {name: amount or None for name, amount in given.items() if amount is not None}
            quota = Quota.model_validate(before | changes)
            others = {name: each for name, each in roll.quotas.items() if name != tenant}
            self._write(roll.model_copy(update={"quotas": others if quota == Quota() else others | {tenant: quota}}))
        return quota

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the file during the block: what was revoked would come back."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, roll: KeyFile) -> None:
        new = self.path.with_name(f".{self.path.name}-{secrets.token_hex(4)}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(roll.model_dump(exclude_none=True), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
            if self.path.exists():  # whoever reads it now is to read it then
                before = self.path.stat()
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode)
        new.replace(self.path)


class Tenants:
    """Tells tenants by their keys, and their quotas, as the file says now: nothing has to be started anew for it."""

    def __init__(self, keys: KeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys; from now on a file that cannot be read leaves things as they were.

        Raises:
            UsageError: it is no file of keys.
        """
        self._keys, self._clock = keys, clock
        self._log = open_log()
        self._seen, self._looked = self._mark(), clock()
        self._roll = keys.load()

    def of(self, key: str) -> str | None:
        """Whose key this is. Takes equally long for every wrong one."""
        self._look()
        given, tenant = digest(key), None
        for known in self._roll.keys:
            if hmac.compare_digest(given, known.sha256):
                tenant = known.tenant
        return tenant

    def quota(self, tenant: str) -> Quota | None:
        """What this tenant may use; None: as much as it likes."""
        self._look()
        return self._roll.quotas.get(tenant)

    def _look(self) -> None:
        if self._clock() - self._looked < LOOK_SECONDS:
            return
        self._looked = self._clock()
        if (mark := self._mark()) != self._seen:
            try:
                self._roll, self._seen = self._keys.load(), mark
            except (UsageError, OSError) as error:
                self._log.warning("keys.unreadable", problem=str(error), action="those known before are in force")

    def _mark(self) -> tuple[int, int] | None:
        """What changes whenever the file does."""
        try:
            status = self._keys.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()
