"""Where the files of a version lie on this machine: in the store itself, in a cache, or where somebody wants them.

A folder appears whole or not at all, and what was verified on its way in is verified again each time that it is asked
for.
"""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from headway.errors import DamageError, StoreError, UsageError
from headway.objectstore.folder import FolderStore
from headway.registry.files import MANIFEST
from headway.registry.version import Version, VersionReader

Advance = Callable[[int], object]
"""Told how many bytes were done since it was last told."""


def cached(version: Version) -> Path:
    """The folder of a version in this machine's cache: `HEADWAY_CACHE`, else the user's.

    Raises:
        UsageError: this user has none.
    """
    chosen = os.environ.get("HEADWAY_CACHE")
    try:
        root = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "headway"
    except RuntimeError as error:
        raise UsageError("this user has no home for a cache of models; name a folder in HEADWAY_CACHE") from error
    return root.absolute() / "models" / version.sha256


def in_store(copy: VersionReader, advance: Advance) -> Path | None:
    """The folder of the store that a version lies in, verified where it lies; None where the store is no folder."""
    if not isinstance(copy.store, FolderStore):
        return None
    for done in copy.check():
        advance(done)
    return copy.store.root / copy.prefix


def in_cache(copy: VersionReader, advance: Advance) -> Path:
    """A version in the cache; a copy there that is not sound any more is brought anew."""
    target = cached(copy.version)
    if target.exists():
        try:
            return _verified(copy.version, target, advance)
        except DamageError:
            shutil.rmtree(target, ignore_errors=True)
    return _brought(copy, target, advance)


def at(copy: VersionReader, target: Path, advance: Advance) -> Path:
    """A version in the folder that somebody names: a new one, an empty one, or one that holds it already.

    Raises:
        UsageError: the folder holds something else.
    """
    target = target.absolute()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        try:
            return _verified(copy.version, target, advance)
        except DamageError as error:
            raise UsageError(f"{target} holds something else than {copy.version}; name a new folder") from error
    return _brought(copy, target, advance)


def _verified(version: Version, folder: Path, advance: Advance) -> Path:
    """A folder on this machine, if a version lies in it as it was published.

    Raises:
        DamageError: it does not.
    """
    for done in VersionReader(FolderStore(folder), version, prefix="").check():
        advance(done)
    return folder


def _brought(copy: VersionReader, target: Path, advance: Advance) -> Path:
    """Bring a version's files to `target`, each verified on the way.

    Raises:
        DamageError: something is not what was published; nothing is left.
        StoreError: the files could not be written.
    """
    copy.check_files()
    partial = target.with_name(f"{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        (partial / MANIFEST).write_bytes(copy.manifest_bytes)
        for name in copy.manifest.files:
            with (partial / name).open("xb") as file:
                for window in copy.read(name):
                    file.write(window)
                    advance(window.nbytes)
        try:
            partial.replace(target)
        except OSError:
            if not target.is_dir():
                raise
            return _verified(copy.version, target, lambda _: None)  # somebody else brought it meanwhile
    except OSError as error:
        raise StoreError(f"{copy.version}: cannot be written to {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
