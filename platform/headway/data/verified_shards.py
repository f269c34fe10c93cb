"""Checks the SHA-256 of token shards, and remembers which ones this user has found sound, so that each is read once.

The memory lies in the user's cache. It knows a shard by its inode, size and times, so a shard that is written, replaced
or copied anew is read again. Damage that changes none of these, in the disk itself, is found by a new machine only.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headway import strict_json
from headway.data.data_manifest import SHARDS, TokenShard
from headway.errors import DataError, UsageError
from headway.localfiles import cache_folder, file_sha256, private_folder, read_bounded, replacing

FOLDER = "data"
"""Folder of the cache that holds a memory for each folder of data."""
MAX_MEMORY_BYTES = 64 << 20
"""Longest memory of a folder [bytes]: 300,000 shards."""


class VerifiedShards:
    """The shards of a folder of built data that are known to be sound."""

    def __init__(self, folder: Path) -> None:
        """Reads the memory of the folder. Without a safe cache there is none, and everything is read each time."""
        self.folder = folder / SHARDS
        self._memory = _memory_file(folder)
        self._known = _load(self._memory)

    def check(self, shards: Sequence[TokenShard], *, limit: int | None = None) -> None:
        """Read the shards that are not known to be sound, up to `limit` bytes, or one shard if that is longer.

        Raises:
            DataError: a shard is not the one that was built; names it.
        """
        unread: list[TokenShard] = []
        length = 0
        for shard in shards:
            if self._known.get(shard.name) != self._state(shard):
                if limit is not None and unread and length + shard.bytes > limit:
                    break
                unread.append(shard)
                length += shard.bytes
        try:
            with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="verify") as readers:
                for shard, state in zip(unread, readers.map(self._read, unread), strict=True):
                    self._known[shard.name] = state
        finally:
            if unread:
                self._save()

    def remember(self, shards: Iterable[TokenShard]) -> None:
        """Take shards for sound that were just written and read back."""
        self._known |= {shard.name: self._state(shard) for shard in shards}
        self._save()

    def _read(self, shard: TokenShard) -> list[str | int]:
        """Check the SHA-256 of a shard; returns its state."""
        path, state = self.folder / shard.name, self._state(shard)
        if file_sha256(path) != shard.sha256:
            raise DataError(f"{path}: damaged: its SHA-256 is not the one in the manifest")
        return state

    def _state(self, shard: TokenShard) -> list[str | int]:
        """What changes when the file of a shard is changed, and the SHA-256 that it should have."""
        try:
            status = (self.folder / shard.name).stat()
        except OSError as error:
            raise DataError(f"{self.folder / shard.name}: cannot be read: {error.strerror}") from error
        return [shard.sha256, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    def _save(self) -> None:
        """Write the memory. A cache that cannot be written has none."""
        if self._memory:
            try:
                with replacing(self._memory, durable=False, mode=0o600) as file:
                    file.write(json.dumps(self._known).encode())
            except OSError:
                pass


def _memory_file(folder: Path) -> Path | None:
    """The file that remembers the shards of a folder; None if another user could write to it."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    try:
        root = cache_folder()
        return private_folder(root / FOLDER, root) / f"{name}.json"
    except (UsageError, OSError):
        return None


def _load(memory: Path | None) -> dict[str, list[str | int]]:
    """The states of the shards that were found sound."""
    if memory is None:
        return {}
    try:
        states = strict_json.parse(read_bounded(memory, MAX_MEMORY_BYTES))
    except (OSError, ValueError, UsageError):
        return {}
    return states if isinstance(states, dict) else {}
