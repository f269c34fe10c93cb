"""Model versions in a store: opened by their journal entry, and verified whole before anything may load them."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from headway.errors import DamageError, MissingObject
from headway.objectstore import Store, read_document
from headway.registry.files import CHUNK_BYTES, MANIFEST
from headway.registry.version_manifest import VersionManifest
from headway.runs import keys
from headway.runs.hashlog import sha256

MANIFEST_BYTES = 4 << 20
"""Longest manifest of a version [bytes]: more than 10,000 files."""
CONCURRENT_READS = 4
"""Chunks of a file that are read at the same time."""


@dataclass(frozen=True)
class Version:
    """A published version, as its journal entry describes it."""

    model: str
    number: int
    manifest: str
    """Key of the manifest."""
    sha256: str
    """SHA-256 of the manifest."""
    bytes: int
    """Size of all files together."""
    time: float
    """Time of publication [s since 1970]."""

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


class VersionReader:
    """Reads and verifies the objects of a version, below one prefix of a store or in a local folder."""

    def __init__(self, store: Store, version: Version, prefix: str | None = None) -> None:
        """`prefix`: prefix of the objects; default: where they were published."""
        self.store, self.version = store, version
        self.prefix = keys.folder(version.manifest) if prefix is None else prefix
        self._manifest_bytes: bytes | None = None
        self._manifest: VersionManifest | None = None

    @property
    def manifest_bytes(self) -> bytes:
        """The manifest as it was published, read once.

        Raises:
            DamageError: it is missing or was changed.
        """
        if self._manifest_bytes is None:
            self._manifest_bytes = self._read_manifest()
        return self._manifest_bytes

    @property
    def manifest(self) -> VersionManifest:
        """The manifest, decoded once.

        Raises:
            DamageError: it is missing, was changed, belongs to another model, or has files of another size.
        """
        if self._manifest is None:
            self._manifest = self._decode_manifest()
        return self._manifest

    def check_files(self) -> None:
        """Check the names and lengths of the files, without reading them.

        Raises:
            DamageError: a file is missing, additional, or of another length; names it.
        """
        expected = {name: file.size for name, file in self.manifest.files.items()}
        sizes = {key.removeprefix(self.prefix): size for key, size in self.store.sizes(self.prefix)}
        sizes.pop(MANIFEST, None)
        for name, size in expected.items():
            if name not in sizes:
                raise self._damage(name, "is missing")
            if sizes[name] != size:
                raise self._damage(name, f"is {sizes[name]:,} bytes long; {size:,} were published")
        for name in sizes.keys() - expected.keys():
            raise self._damage(name, "was not published with it")

    def read(self, name: str) -> Iterator[memoryview]:
        """The bytes of a file in order, a chunk at a time. They are verified at the end of the file.

        Raises:
            DamageError: the bytes are not those that were published.
        """
        file, digest = self.manifest.files[name], hashlib.sha256()
        for chunk in self._chunks(name, file.size):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != file.sha256:
            raise self._damage(name, "is not what was published")

    def check(self) -> Iterator[int]:
        """Read and verify every file; yields the number of bytes of each chunk.

        Raises:
            DamageError: a file is not what was published; names it.
        """
        self.check_files()
        for name in self.manifest.files:
            for chunk in self.read(name):
                yield chunk.nbytes

    def _read_manifest(self) -> bytes:
        try:
            data = read_document(self.store, keys.version_manifest(self.prefix), MANIFEST_BYTES)
        except MissingObject as error:
            raise self._damage(MANIFEST, "is missing") from error
        if sha256(data) != self.version.sha256:
            raise self._damage(MANIFEST, "is not the one whose SHA-256 is in the model's journal")
        return data

    def _decode_manifest(self) -> VersionManifest:
        manifest = VersionManifest.decode(self.manifest_bytes, f"{self.version}: {MANIFEST}")
        if manifest.model != self.version.model:
            raise self._damage(MANIFEST, f"belongs to another model, {manifest.model}")
        if manifest.size != self.version.bytes:
            problem = f"names {manifest.size:,} bytes of files; the model's journal says {self.version.bytes:,}"
            raise self._damage(MANIFEST, problem)
        return manifest

    def _chunks(self, name: str, size: int) -> Iterator[memoryview]:
        """A file in chunks; the next ones are read while the caller processes one."""
        with ThreadPoolExecutor(CONCURRENT_READS, thread_name_prefix="registry") as readers:
            ahead: deque[Future[memoryview]] = deque()
            for start in range(0, size, CHUNK_BYTES):
                ahead.append(readers.submit(self._chunk, name, start, min(CHUNK_BYTES, size - start)))
                if len(ahead) > CONCURRENT_READS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _chunk(self, name: str, start: int, length: int) -> memoryview:
        chunk = memoryview(bytearray(length))
        try:
            count = self.store.fill(self.prefix + name, chunk, start)
        except MissingObject as error:
            raise self._damage(name, "is missing") from error
        if count < length:
            raise self._damage(name, f"ends after {start + count:,} bytes")
        return chunk

    def _damage(self, name: str, problem: str) -> DamageError:
        where = f"{self.prefix}{name} in {self.store.url}"
        return DamageError(f"{self.version}: {name} {problem} ({where}); it is not loaded. Publish the model again")
