"""A version in the store: opened from its journal entry, and verified whole before anything may load it."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from headway.errors import DamageError, MissingObject
from headway.objectstore import Store
from headway.registry.files import MANIFEST, WINDOW_BYTES
from headway.registry.version_manifest import VersionManifest, decode
from headway.runs import keys
from headway.runs.hashlog import sha256

READERS = 4
"""Windows that are on their way side by side."""


@dataclass(frozen=True)
class Version:
    """What the journal says of a version."""

    model: str
    number: int
    manifest: str
    """Key of the manifest."""
    sha256: str
    """Of the manifest's bytes."""
    bytes: int
    """Of all files."""
    time: float
    """When it was published [s since 1970]."""

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


class VersionReader:
    """The objects of a version below one prefix of a store, or in a folder that is looked at as one."""

    def __init__(self, store: Store, version: Version, prefix: str | None = None) -> None:
        """`prefix`: where they lie, if it is not where they were published."""
        self.store, self.version = store, version
        self.prefix = keys.folder(version.manifest) if prefix is None else prefix

    @cached_property
    def manifest_bytes(self) -> bytes:
        """The manifest as it was published.

        Raises:
            DamageError: it is not, or it is missing.
        """
        try:
            data = self.store.get(keys.version_manifest(self.prefix))
        except MissingObject as error:
            raise self._damage(MANIFEST, "is missing") from error
        if sha256(data) != self.version.sha256:
            raise self._damage(MANIFEST, "is not the one that the model's journal vouches for")
        return data

    @cached_property
    def manifest(self) -> VersionManifest:
        """The manifest, if its bytes are those that the journal vouches for.

        Raises:
            DamageError: they are not.
        """
        manifest = decode(self.manifest_bytes, f"{self.version}: {MANIFEST}")
        if manifest.model != self.version.model:
            raise self._damage(MANIFEST, f"is of another model, {manifest.model}")
        return manifest

    def check_files(self) -> None:
        """See that the files are there, with their lengths, and no others: a cheap look that reads none of them.

        Raises:
            DamageError: one is missing, too many, or of another length; names it.
        """
        wanted = {name: file.size for name, file in self.manifest.files.items()}
        there = {key.removeprefix(self.prefix): size for key, size in self.store.sizes(self.prefix)}
        there.pop(MANIFEST, None)
        for name, size in wanted.items():
            if name not in there:
                raise self._damage(name, "is missing")
            if there[name] != size:
                raise self._damage(name, f"is {there[name]:,} bytes long; {size:,} were published")
        for name in there.keys() - wanted.keys():
            raise self._damage(name, "was not published with it")

    def read(self, name: str) -> Iterator[memoryview]:
        """The bytes of a file in their order, a window at a time; whether they are sound is known at the end.

        Raises:
            DamageError: they are not those that were published.
        """
        file, digest = self.manifest.files[name], hashlib.sha256()
        for window in self._windows(name, file.size):
            digest.update(window)
            yield window
        if digest.hexdigest() != file.sha256:
            raise self._damage(name, "is not what was published")

    def check(self) -> Iterator[int]:
        """Read everything; yields the bytes that were read between.

        Raises:
            DamageError: something is not what was published; names it.
        """
        self.check_files()
        for name in self.manifest.files:
            for window in self.read(name):
                yield window.nbytes

    def _windows(self, name: str, size: int) -> Iterator[memoryview]:
        """A file in windows, of which the next are on their way while one is looked at."""
        with ThreadPoolExecutor(READERS, thread_name_prefix="registry") as readers:
            ahead: deque[Future[memoryview]] = deque()
            for start in range(0, size, WINDOW_BYTES):
                ahead.append(readers.submit(self._window, name, start, min(WINDOW_BYTES, size - start)))
                if len(ahead) > READERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _window(self, name: str, start: int, length: int) -> memoryview:
        window = memoryview(bytearray(length))
        try:
            there = self.store.fill(self.prefix + name, window, start)
        except MissingObject as error:
            raise self._damage(name, "is missing") from error
        if there < length:
            raise self._damage(name, f"ends after {start + there:,} bytes")
        return window

    def _damage(self, name: str, what: str) -> DamageError:
        where = f"{self.prefix}{name} in {self.store.url}"
        return DamageError(f"{self.version}: {name} {what} ({where}); it is not loaded. Publish the model again")
