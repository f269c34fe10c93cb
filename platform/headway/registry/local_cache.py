"""Local folders of model versions: in a folder store, in this machine's cache, or in a folder of the caller's choice.

A folder appears whole or not at all. A version is verified while it is downloaded, and again each time it is fetched.
A damaged copy in the cache goes once a sound one has come. Only files that the version has are deleted from it: what
the cache did not make, it keeps.
"""

import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headway.errors import DamageError, StoreError, UsageError
from headway.localfiles import cache_folder
from headway.objectstore.folder import FolderStore
from headway.registry.files import MANIFEST
from headway.registry.version import Version, VersionReader
from headway.temporary_folder import temporary_folder

Advance = Callable[[int], object]
"""Progress callback: takes the number of bytes processed since its last call."""


def cache_path(version: Version) -> Path:
    """The folder of a version in this machine's cache.

    Raises:
        UsageError: this user has no cache folder.
    """
    return cache_folder() / "models" / version.sha256


def verify_in_store(reader: VersionReader, advance: Advance) -> Path | None:
    """Verify a version where it lies in a folder store, and return its folder; None for other stores."""
    if not isinstance(reader.store, FolderStore):
        return None
    for size in reader.check():
        advance(size)
    return reader.store.root / reader.prefix


def fetch_to_cache(reader: VersionReader, advance: Advance) -> Path:
    """The folder of a version in the cache, verified. A damaged copy is downloaded again."""
    target = cache_path(reader.version)
    if not target.exists():
        return _download(reader, target, advance)
    try:
        return _verify(reader.version, target, advance)
    except DamageError:
        return _download(reader, target, advance, replace=True)


def fetch_to(reader: VersionReader, target: Path, advance: Advance) -> Path:
    """Fetch a version to `target`: a new folder, an empty one, or one that holds the version already.

    Raises:
        UsageError: the folder holds something else.
    """
    target = target.absolute()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        try:
            return _verify(reader.version, target, advance)
        except DamageError as error:
            raise UsageError(f"{target} holds something other than {reader.version}; name a new folder") from error
    return _download(reader, target, advance)


def _verify(version: Version, folder: Path, advance: Advance) -> Path:
    """Verify a version in a local folder, and return the folder.

    Raises:
        DamageError: the folder does not hold the version as it was published.
    """
    for size in VersionReader(FolderStore(folder), version, prefix="").check():
        advance(size)
    return folder


def _download(reader: VersionReader, target: Path, advance: Advance, *, replace: bool = False) -> Path:
    """Download the files of a version to `target`, verifying each; an error leaves nothing.

    Afterwards, `replace` deletes the copy of the version that was there.

    Raises:
        DamageError: something is not what was published.
        StoreError: the files could not be written, or the disk has no room for them.
    """
    reader.check_files()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(parent=target.parent) as folder:
            partial = folder / target.name
            partial.mkdir()
            _check_room(reader, target.parent)
            (partial / MANIFEST).write_bytes(reader.manifest_bytes)
            for name in reader.manifest.files:
                with (partial / name).open("xb") as file:
                    for chunk in reader.read(name):
                        file.write(chunk)
                        advance(chunk.nbytes)
            if replace:
                _delete_copy(target, reader)
            try:
                partial.replace(target)
            except OSError:
                if not target.is_dir():
                    raise
                return _verify(reader.version, target, lambda _: None)  # another process has just downloaded it
    except OSError as error:
        raise StoreError(f"{reader.version}: cannot be written to {target}: {error.strerror}") from error
    return target


def _check_room(reader: VersionReader, folder: Path) -> None:
    """Refuse to fill the disk.

    Raises:
        StoreError: the files of the version do not fit.
    """
    free = shutil.disk_usage(folder).free
    size = reader.manifest.size
    if size > free:
        raise StoreError(f"{reader.version}: its files have {size:,} bytes, but {folder} has room for {free:,}")


def _delete_copy(target: Path, reader: VersionReader) -> None:
    """Delete the files of a version from `target`. What else lies there is kept beside it, with the old folder."""
    old = target.with_name(f"{target.name}.replaced-{uuid.uuid4().hex[:8]}")
    target.rename(old)
    if old.is_symlink():
        old.unlink()
        return
    with suppress(OSError):  # something is left in the folder
        for name in (MANIFEST, *reader.manifest.files):
            (old / name).unlink(missing_ok=True)
        old.rmdir()
