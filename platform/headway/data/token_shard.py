"""Token shards: a 64-byte header, then the tokens, little-endian, of whole documents one after the other.

```
 0  8 bytes  magic "HEADWAY" and a zero byte
 8  uint32   version of this format
12  uint32   bytes per token: 2 (uint16) or 4 (uint32)
16  uint64   number of tokens
24  32 bytes SHA-256 of the tokenizer.json that made them
56  8 bytes  zero
```
Each document ends with the end-of-document token; nothing else marks a boundary. A shard is written under a
temporary name and renamed, so a file with a shard's name is whole, but for a power cut: until the manifest is
written, shards are believed by their SHA-256 only; before it is, they are made durable.
"""

import hashlib
import mmap
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headway.errors import DataError

MAGIC = b"HEADWAY\0"
VERSION = 1
HEADER = struct.Struct("<8sIIQ32s8x")
MAPPED = 1024
"""Shards of a stream kept mapped at once; the kernel allows 65,530 maps to a process."""

Tokens = NDArray[np.uint16] | NDArray[np.uint32]


class Header(NamedTuple):
    """What a shard's first 64 bytes say."""

    token_bytes: int
    tokens: int
    tokenizer_sha256: str

    @property
    def size(self) -> int:
        """Length of the whole file [bytes]."""
        return HEADER.size + self.tokens * self.token_bytes


class Written(NamedTuple):
    """A finished shard."""

    tokens: int
    size: int
    sha256: str


def token_bytes(vocabulary: int) -> int:
    """Bytes per token: as few as hold the largest id."""
    return 2 if vocabulary <= 1 << 16 else 4


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file that takes the name `path`, whole, when the block ends well; otherwise nothing does.

    `durable`: whether it is on the disk then, or after a later `settle`.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w+b") as file:
            yield file
        if durable:
            settle(partial)
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    if durable:
        settle(path.parent)


def settle(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class Writer:
    """Appends tokens to the shard that `file` becomes; `finish` writes its header."""

    def __init__(self, file: IO[bytes], vocabulary: int, tokenizer_sha256: str) -> None:
        self.file = file
        self.width = token_bytes(vocabulary)
        self.tokenizer_sha256 = tokenizer_sha256
        self.tokens = 0
        file.write(bytes(HEADER.size))

    def append(self, tokens: Sequence[int]) -> None:
        """Write tokens at the end."""
        self.file.write(np.array(tokens, dtype=f"<u{self.width}").tobytes())
        self.tokens += len(tokens)

    def finish(self) -> Written:
        """Write the header, and read the file back for its SHA-256."""
        self.file.seek(0)
        self.file.write(HEADER.pack(MAGIC, VERSION, self.width, self.tokens, bytes.fromhex(self.tokenizer_sha256)))
        self.file.flush()
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, "sha256").hexdigest()  # type: ignore[arg-type]
        return Written(self.tokens, HEADER.size + self.tokens * self.width, digest)


def header(path: Path) -> Header:
    """Read and check a shard's header, and that the file is as long as it says.

    Raises:
        DataError: the file is missing or is not a whole shard.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) < HEADER.size or not raw.startswith(MAGIC):
        raise DataError(f"{path}: not a token shard")
    _, version, width, tokens, tokenizer = HEADER.unpack(raw)
    if version != VERSION or width not in {2, 4}:
        raise DataError(f"{path}: a token shard of another version ({version}); this one reads {VERSION}")
    found = Header(width, tokens, tokenizer.hex())
    if found.size != size:
        raise DataError(f"{path}: damaged: {size:,} bytes long, its header says {found.size:,}")
    return found


def tokens_of(path: Path) -> Tokens:
    """The tokens of a shard, [n], mapped into memory and read-only."""
    found = header(path)
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(view, dtype=f"<u{found.token_bytes}", offset=HEADER.size)


class Stream:
    """The tokens of several shards, one after the other, as one sequence."""

    def __init__(self, shards: Sequence[tuple[Path, int]]) -> None:
        """`shards`: each one's path and number of tokens."""
        self.paths = [path for path, _ in shards]
        self.starts = [0, *accumulate(count for _, count in shards)]
        self.tokens_of = lru_cache(maxsize=MAPPED)(lambda shard: tokens_of(self.paths[shard]))

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, start: int, out: NDArray[np.int64]) -> None:
        """Fill `out`, [n], with the tokens [start, start + n)."""
        if start < 0 or start + len(out) > len(self):
            raise IndexError(f"tokens [{start:,}, {start + len(out):,}) of a stream of {len(self):,}")
        shard = bisect_right(self.starts, start) - 1
        done = 0
        while done < len(out):
            tokens = self.tokens_of(shard)
            at = start + done - self.starts[shard]
            part = tokens[at : at + len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)
            shard += 1
