"""One model in a store: its versions, its aliases, and how both come to be."""

import hashlib
import re
import secrets
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

from headway.errors import DamageError, StoreError, UsageError
from headway.objectstore import Store
from headway.registry import local_cache
from headway.registry.code import this_code
from headway.registry.files import digest, look, windows
from headway.registry.local_cache import Advance
from headway.registry.model_history import KINDS, Aliased, Entry, ModelHistory, Published, fold_model
from headway.registry.version import Version, VersionReader
from headway.registry.version_manifest import ModelFile, Origin, VersionManifest
from headway.runs import keys
from headway.runs.hashlog import EntryHeader, HashLog, sha256

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,99}\Z")
STABLE = "stable"
"""The alias that a name by itself means, if there is one."""


class RegisteredModel:
    """A model, which exists from the moment that its first version is published."""

    def __init__(self, store: Store, name: str) -> None:
        """Nothing is asked of the store yet.

        Raises:
            UsageError: no model can have such a name.
        """
        if not NAME.match(name):
            raise UsageError(f"{name!r} is no name of a model: letters, digits, and . _ - between them")
        self.store, self.name = store, name
        self.journal: HashLog[Entry] = HashLog(store, keys.model_journal(name), KINDS)

    def history(self) -> ModelHistory:
        """What the journal says now."""
        return fold_model(self.journal.read())

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        return [self._version(entry) for entry in self.history().published.values()]

    def aliases(self) -> dict[str, int]:
        """What each alias points at, as far as the journal can be read; `find` says where it cannot."""
        return {alias: entry.version for alias, entry in sorted(self.history().aliased.items())}

    def find(self, reference: str) -> Version:
        """The version that `NAME@VERSION`, `NAME@ALIAS` or `NAME` means: alone, its `stable`, else its newest.

        Raises:
            UsageError: there is none; names those that there are.
            DamageError: the journal is damaged where it would say which.
        """
        name, _, which = reference.partition("@")
        if name != self.name:
            raise UsageError(f"{reference} is not of model {self.name}")
        history = self.history()
        if not history.published and not history.damaged:
            there = ", ".join(model_names(self.store)) or "none"
            raise UsageError(f"no model {name} in {self.store.url}; there: {there}")
        if which.isdecimal():
            return self._numbered(history, int(which))
        alias = which or STABLE
        if doubt := history.doubt(alias):
            raise DamageError(
                f"{name}@{alias}: {doubt.reason}, and it may have moved {alias}; "
                f"say which version it is: headway alias {name}@VERSION {alias}"
            )
        if alias in history.aliased:
            return self._numbered(history, history.aliased[alias].version)
        if which:
            raise UsageError(f"model {name} has no alias {which}; it has {self._there(history)}")
        return self._version(history.published[max(history.published)])

    def publish(
        self,
        folder: Path,
        origin: Origin,
        *,
        dtype: str,
        quantization: str | None = None,
        held_out: float | None = None,
        trace: str | None = None,
        advance: Advance = lambda _: None,
    ) -> Version:
        """Make a version of the files in `folder`; or return a sound one that has these files of this origin already.

        `advance` is told of the bytes that are on their way. The files go where nobody else writes; the version is
        true when the journal names it, and whatever stops before that leaves none.

        Raises:
            UsageError: the folder holds a file that no model may have, or changed meanwhile.
            StoreError: the store failed. If that was the last step, nobody knows: the same again will tell.
        """
        paths = look(folder)
        files = {name: ModelFile(size=path.stat().st_size, sha256=digest(path)) for name, path in paths.items()}
        manifest = VersionManifest(
            model=self.name,
            files=files,
            origin=origin,
            dtype=dtype,
            quantization=quantization,
            held_out=held_out,
            code=this_code(),
            created=time.time(),
            trace=trace,
        )
        unsound: set[int] = set()
        while same := self._same(self.history(), manifest.content, unsound):
            if self._sound(same, advance):
                return same
            unsound.add(same.number)
        prefix = keys.version(self.name, origin.tokens, secrets.token_hex(8))
        key, data = keys.version_manifest(prefix), manifest.encode()
        try:
            for name, path in paths.items():
                self.store.put(prefix + name, _unchanged(path, files[name], advance))
            self.store.put(key, [data])
        except BaseException:
            self._discard(prefix)
            raise

        def make(where: EntryHeader) -> Published | None:
            history = fold_model(self.journal.entries)
            if self._same(history, manifest.content, unsound):
                return None
            return Published(
                version=history.next,
                manifest=key,
                sha256=sha256(data),
                bytes=manifest.size,
                content=manifest.content,
                **where,
            )

        if made := self.journal.add(make):
            return self._version(made)
        self._discard(prefix)  # somebody else published the same meanwhile
        same = self._same(self.history(), manifest.content, unsound)
        assert same
        return same

    def alias(self, alias: str, version: int) -> None:
        """Point an alias at a version, from now on.

        Raises:
            UsageError: there is no such version, or no alias can be called so.
        """
        self.check_alias(alias)

        def make(where: EntryHeader) -> Aliased | None:
            history = fold_model(self.journal.entries)
            self._numbered(history, version)
            if self._points(history, alias, version):
                return None
            return Aliased(alias=alias, version=version, **where)

        self.journal.add(make)

    def check_alias(self, alias: str) -> None:
        """See that an alias can be called so.

        Raises:
            UsageError: it cannot.
        """
        if not ALIAS.match(alias):
            raise UsageError(f"{alias!r} is no alias: a small letter first, then small letters, digits, and . _ -")

    def copy(self, version: Version) -> VersionReader:
        """A version's objects, to be verified."""
        return VersionReader(self.store, version)

    def manifest(self, version: Version) -> VersionManifest:
        """What a version is, and where it came from.

        Raises:
            DamageError: the manifest is not the one that was published.
        """
        return self.copy(version).manifest

    def verify(self, version: Version) -> Iterator[int]:
        """Read a version whole; yields the bytes that were read between.

        Raises:
            DamageError: something is not what was published; names it.
        """
        return self.copy(version).check()

    def fetch(self, version: Version, to: Path | None = None, advance: Advance = lambda _: None) -> Path:
        """A folder on this machine that holds a version, every byte of it verified just now.

        A version in a folder store lies there already; another is brought to `to`, or to the cache of this machine.

        Raises:
            DamageError: something is not what was published; names version and file.
            UsageError: `to` holds something else.
            StoreError: the store failed, or there is no room.
        """
        copy = self.copy(version)
        if to is not None:
            return local_cache.at(copy, to, advance)
        return local_cache.in_store(copy, advance) or local_cache.in_cache(copy, advance)

    def _numbered(self, history: ModelHistory, number: int) -> Version:
        """A version by its number, if an entry that can be believed vouches for it."""
        if number in history.published:
            return self._version(history.published[number])
        if history.damaged:
            raise DamageError(
                f"{self.name}@{number}: nobody vouches for it ({history.damaged[0].reason}); it is not loaded. "
                f"Publish the model again"
            )
        raise UsageError(f"model {self.name} has no version {number}; it has {self._there(history)}")

    def _version(self, entry: Published) -> Version:
        return Version(self.name, entry.version, entry.manifest, entry.sha256, entry.bytes, entry.time)

    def _same(self, history: ModelHistory, content: str, unsound: Container[int]) -> Version | None:
        """The first version that has this content and is not known to be `unsound`, if there is one."""
        found = (e for e in history.published.values() if e.content == content and e.version not in unsound)
        return next(map(self._version, found), None)

    def _sound(self, version: Version, advance: Advance) -> bool:
        """Whether a version is whole, byte for byte."""
        try:
            for done in self.verify(version):
                advance(done)
        except DamageError:
            return False
        return True

    def _points(self, history: ModelHistory, alias: str, version: int) -> bool:
        """Whether an alias points at a version, beyond doubt."""
        return alias in history.aliased and history.aliased[alias].version == version and not history.doubt(alias)

    def _there(self, history: ModelHistory) -> str:
        versions = ", ".join(str(number) for number in history.published) or "none"
        aliases = ", ".join(f"{alias} ({entry.version})" for alias, entry in sorted(history.aliased.items()))
        return f"versions {versions}" + (f" and aliases {aliases}" if aliases else "")

    def _discard(self, prefix: str) -> None:
        """Delete what no entry will ever name, if the store lets us: the first error is what counts."""
        with suppress(StoreError):
            for key in list(self.store.list(prefix)):
                self.store.delete(key)


def model_names(store: Store) -> list[str]:
    """Names of the models in a store: those that have a journal."""
    return [name for name in store.folders(keys.models()) if next(store.list(keys.model_journal(name)), None)]


def find(store: Store, reference: str) -> tuple[RegisteredModel, Version]:
    """The model and the version that a reference means; see `RegisteredModel.find`."""
    model = RegisteredModel(store, reference.partition("@")[0])
    return model, model.find(reference)


def _unchanged(path: Path, file: ModelFile, advance: Advance) -> Iterator[bytes]:
    """The bytes of a file, on their way; at their end it is seen that they are those that were looked at before.

    Raises:
        UsageError: they are not; what was written of them is not taken.
    """
    seen = hashlib.sha256()
    for window in windows(path):
        seen.update(window)
        yield window
        advance(len(window))
    if seen.hexdigest() != file.sha256:
        raise UsageError(f"{path} was changed while it was published; nothing was. Publish it again")
