"""A registered model in a store: publishes versions, moves aliases, resolves references and fetches versions."""

import re
import secrets
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from headway.errors import DamageError, StoreError, UsageError
from headway.localfiles import file_sha256
from headway.objectstore import Store
from headway.registry.code import this_code
from headway.registry.files import model_files, read_unchanged
from headway.registry.local_cache import Advance, fetch_to, fetch_to_cache, verify_in_store
from headway.registry.model_history import ENTRY_TYPES, Aliased, ModelEntry, ModelHistory, Published, fold_model
from headway.registry.version import Version, VersionReader
from headway.registry.version_manifest import ModelFile, Origin, VersionManifest
from headway.runs import keys
from headway.runs.hashlog import EntryHeader, HashLog, sha256

ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,99}\Z")
STABLE = "stable"
"""The alias that a model's name stands for, if the alias exists."""


class RegisteredModel:
    """A model in the registry. It exists once its first version is published."""

    def __init__(self, store: Store, name: str) -> None:
        """Sends no request to the store.

        Raises:
            UsageError: the name is not a valid model name.
        """
        self.store, self.name = store, name
        self.journal: HashLog[ModelEntry] = HashLog(store, keys.model_journal(name), ENTRY_TYPES)

    def history(self) -> ModelHistory:
        """The current state of the model, read from its journal."""
        return fold_model(self.name, self.journal.read())

    def findings(self) -> list[str]:
        """What does not fit in the model's journal and folder, in one line each."""
        damaged = [f"model {self.name}: {entry.reason}" for entry in self.history().damaged]
        beyond = [f"{key}: no entry leads to it" for key in self.journal.strays]
        return damaged + beyond + [f"{key}: {why}" for key, why in self.store.strays(keys.model(self.name))]

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        return [self._version(entry) for entry in self.history().published.values()]

    def aliases(self) -> dict[str, int]:
        """The version of each alias, by the readable journal entries. `find` also considers damaged entries."""
        return {alias: entry.version for alias, entry in sorted(self.history().aliased.items())}

    def find(self, reference: str) -> Version:
        """The version of `NAME@VERSION`, `NAME@ALIAS` or `NAME`: its `stable` version, else its newest.

        Raises:
            UsageError: there is none; lists the existing ones.
            DamageError: a damaged journal entry leaves the version in doubt.
        """
        name, _, selector = reference.partition("@")
        if name != self.name:
            raise UsageError(f"{reference} does not belong to model {self.name}")
        history = self.history()
        if not history.published and not history.damaged:
            models = ", ".join(model_names(self.store)) or "none"
            raise UsageError(f"no model {name} in {self.store.url}; its models: {models}")
        if selector.isdecimal():
            return self._by_number(history, int(selector))
        alias = selector or STABLE
        if damage := history.possible_move(alias):
            raise DamageError(
                f"{name}@{alias}: {damage.reason}, and it may have moved {alias}; "
                f"set the alias again: headway alias {name}@VERSION {alias}"
            )
        if alias in history.aliased:
            return self._by_number(history, history.aliased[alias].version)
        if selector:
            raise UsageError(f"model {name} has no alias {selector}; it has {_summary(history)}")
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
        """Publish the files in `folder` as the next version.

        Returns the existing version if a sound one has the same files and origin. `advance` takes the bytes uploaded
        since its last call. The files go under a new prefix; the version exists once the journal names it, and an
        error before that leaves none.

        Raises:
            UsageError: the folder holds a file that no model may have, or changed meanwhile.
            StoreError: the store failed. If the last request failed, the version may exist: publish again.
        """
        paths = model_files(folder)
        manifest = VersionManifest(
            model=self.name,
            files={name: ModelFile(size=path.stat().st_size, sha256=file_sha256(path)) for name, path in paths.items()},
            origin=origin,
            dtype=dtype,
            quantization=quantization,
            held_out=held_out,
            code=this_code(),
            created=time.time(),
            trace=trace,
        )
        damaged: set[int] = set()
        while existing := self._with_content(self.history(), manifest.content, damaged):
            if self._is_sound(existing, advance):
                return existing
            damaged.add(existing.number)
        prefix = self._upload(paths, manifest, advance)
        return self._record(prefix, manifest, damaged)

    def alias(self, alias: str, version: int) -> None:
        """Point an alias at a version.

        Raises:
            UsageError: there is no such version, or the alias name is not valid.
        """
        self.check_alias(alias)

        def make(header: EntryHeader) -> Aliased | None:
            history = fold_model(self.name, self.journal.entries)
            self._by_number(history, version)
            if _points_at(history, alias, version):
                return None
            return Aliased(alias=alias, version=version, **header)

        self.journal.add(make)

    def check_alias(self, alias: str) -> None:
        """Check the name of an alias.

        Raises:
            UsageError: it is not valid.
        """
        if not ALIAS.match(alias):
            raise UsageError(
                f"{alias!r} is not an alias; use a lowercase letter, then lowercase letters, digits, and . _ -"
            )

    def reader(self, version: Version) -> VersionReader:
        """A verifying reader of a version's objects."""
        return VersionReader(self.store, version)

    def manifest(self, version: Version) -> VersionManifest:
        """The manifest of a version: its files and their origin.

        Raises:
            DamageError: the manifest is not the one that was published.
        """
        return self.reader(version).manifest

    def verify(self, version: Version) -> Iterator[int]:
        """Read and verify a whole version; yields the number of bytes of each chunk.

        Raises:
            DamageError: a file is not what was published; names it.
        """
        return self.reader(version).check()

    def fetch(self, version: Version, to: Path | None = None, advance: Advance = lambda _: None) -> Path:
        """A local folder that holds a version, with every byte just verified.

        A version in a folder store is used where it lies. Others are downloaded to `to`, or to this machine's cache.

        Raises:
            DamageError: a file is not what was published; names version and file.
            UsageError: `to` holds something else.
            StoreError: the store failed, or the disk is full.
        """
        reader = self.reader(version)
        if to is not None:
            return fetch_to(reader, to, advance)
        return verify_in_store(reader, advance) or fetch_to_cache(reader, advance)

    def _upload(self, paths: Mapping[str, Path], manifest: VersionManifest, advance: Advance) -> str:
        """Upload the files and their manifest under a new prefix; returns the prefix."""
        prefix = keys.version(self.name, manifest.origin.tokens, secrets.token_hex(8))
        try:
            for name, path in paths.items():
                self.store.put(prefix + name, read_unchanged(path, manifest.files[name].sha256, advance))
            self.store.put(keys.version_manifest(prefix), [manifest.encode()])
        except BaseException:
            self._discard(prefix)
            raise
        return prefix

    def _record(self, prefix: str, manifest: VersionManifest, damaged: Container[int]) -> Version:
        """Add an uploaded version to the journal.

        If another process has just published the same content, discards the upload and returns that version.
        """
        digest = sha256(manifest.encode())

        def make(header: EntryHeader) -> Published | None:
            history = fold_model(self.name, self.journal.entries)
            if self._with_content(history, manifest.content, damaged):
                return None
            return Published(
                version=history.next_number,
                manifest=keys.version_manifest(prefix),
                sha256=digest,
                bytes=manifest.size,
                content=manifest.content,
                **header,
            )

        if entry := self.journal.add(make):
            return self._version(entry)
        self._discard(prefix)
        existing = self._with_content(self.history(), manifest.content, damaged)
        assert existing
        return existing

    def _by_number(self, history: ModelHistory, number: int) -> Version:
        """The version of a number, if a readable journal entry names it."""
        if number in history.published:
            return self._version(history.published[number])
        if history.damaged:
            raise DamageError(
                f"{self.name}@{number}: no readable journal entry names it ({history.damaged[0].reason}); it is not "
                f"loaded. Publish the model again"
            )
        raise UsageError(f"model {self.name} has no version {number}; it has {_summary(history)}")

    def _version(self, entry: Published) -> Version:
        return Version(self.name, entry.version, entry.manifest, entry.sha256, entry.bytes, entry.time)

    def _with_content(self, history: ModelHistory, content: str, damaged: Container[int]) -> Version | None:
        """The first version with this content, except the `damaged` ones."""
        entries = (e for e in history.published.values() if e.content == content and e.version not in damaged)
        return next(map(self._version, entries), None)

    def _is_sound(self, version: Version, advance: Advance) -> bool:
        """Whether every byte of a version is what was published."""
        try:
            for size in self.verify(version):
                advance(size)
        except DamageError:
            return False
        return True

    def _discard(self, prefix: str) -> None:
        """Delete objects that no journal entry names. Ignores store errors: the caller's error matters more."""
        with suppress(StoreError):
            for key in list(self.store.list(prefix)):
                self.store.delete(key)


def model_names(store: Store) -> list[str]:
    """Names of the models in a store: those that have a journal."""
    names = filter(keys.NAME.fullmatch, store.folders(keys.models()))
    return [name for name in names if next(store.list(keys.model_journal(name)), None)]


def strays_among_models(store: Store) -> list[str]:
    """A finding for each folder in the place of a model that has no name of one."""
    folders = store.folders(keys.models())
    return [f"{keys.models()}{name}: is not a name for a model" for name in folders if not keys.NAME.fullmatch(name)]


def find(store: Store, reference: str) -> tuple[RegisteredModel, Version]:
    """The model and the version of a reference; see `RegisteredModel.find`."""
    model = RegisteredModel(store, reference.partition("@")[0])
    return model, model.find(reference)


def _points_at(history: ModelHistory, alias: str, version: int) -> bool:
    """Whether an alias points at a version, with no damaged entry that may have moved it."""
    return alias in history.aliased and history.aliased[alias].version == version and not history.possible_move(alias)


def _summary(history: ModelHistory) -> str:
    versions = ", ".join(str(number) for number in history.published) or "none"
    aliases = ", ".join(f"{alias} ({entry.version})" for alias, entry in sorted(history.aliased.items()))
    return f"versions {versions}" + (f" and aliases {aliases}" if aliases else "")
