"""Token shards: a 64-byte header, then the tokens, little-endian, of whole documents one after the other.

```
 0  8 bytes  magic "HEADWAY" and a zero byte
 8  uint32   version of this format
12  uint32   bytes per token: 2 (uint16) or 4 (uint32)
16  uint64   number of tokens
24  32 bytes SHA-256 of the tokenizer.json that encoded them
56  8 bytes  zero
```
Each document ends with the end-of-document token; nothing else marks a boundary. A shard is written under a temporary
name and renamed, so a file with a shard's name is whole, except after a power cut. A build therefore checks the
SHA-256 of existing shards, and syncs all shards to disk before it writes the manifest.
"""

import hashlib
import mmap
import os
import struct
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headway.errors import DataError, UsageError
from headway.localfiles import open_regular

MAGIC = b"HEADWAY\0"
VERSION = 1
HEADER = struct.Struct("<8sIIQ32s8x")
MAX_MAPPED_SHARDS = 1024
"""Shards of a stream that stay mapped at once; the kernel allows 65,530 maps per process."""

Tokens = NDArray[np.uint16] | NDArray[np.uint32]


class ShardHeader(NamedTuple):
    """The fields of a shard's first 64 bytes."""

    token_bytes: int
    tokens: int
    tokenizer_sha256: str

    @property
    def size(self) -> int:
        """Length of the whole file [bytes]."""
        return HEADER.size + self.tokens * self.token_bytes


class ShardSummary(NamedTuple):
    """Length and checksum of a finished shard."""

    tokens: int
    size: int
    sha256: str


def token_bytes(vocabulary: int) -> int:
    """Bytes per token: the fewest that hold the largest id."""
    return 2 if vocabulary <= 1 << 16 else 4


class ShardWriter:
    """Writes a shard to `file`: tokens by `append`, the header by `finish`."""

    def __init__(self, file: IO[bytes], vocabulary: int, tokenizer_sha256: str) -> None:
        self.file = file
        self.token_bytes = token_bytes(vocabulary)
        self.tokenizer_sha256 = tokenizer_sha256
        self.tokens = 0
        file.write(bytes(HEADER.size))

    def append(self, tokens: Sequence[int]) -> None:
        """Write tokens at the end."""
        self.file.write(np.array(tokens, dtype=f"<u{self.token_bytes}").tobytes())
        self.tokens += len(tokens)

    def finish(self) -> ShardSummary:
        """Write the header, and read the file back for its SHA-256."""
        self.file.seek(0)
        tokenizer = bytes.fromhex(self.tokenizer_sha256)
        self.file.write(HEADER.pack(MAGIC, VERSION, self.token_bytes, self.tokens, tokenizer))
        self.file.flush()
        self.file.seek(0)
        digest = hashlib.file_digest(self.file, "sha256").hexdigest()  # type: ignore[arg-type]
        return ShardSummary(self.tokens, HEADER.size + self.tokens * self.token_bytes, digest)


def read_header(path: Path) -> ShardHeader:
    """Read a shard's header. Checks that the file has the length that the header states.

    Raises:
        DataError: the file is missing or is not a whole shard.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except (OSError, UsageError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(raw) < HEADER.size or not raw.startswith(MAGIC):
        raise DataError(f"{path}: not a token shard")
    _, version, width, tokens, tokenizer = HEADER.unpack(raw)
    if version != VERSION or width not in {2, 4}:
        raise DataError(f"{path}: a token shard of another version ({version}); this Headway reads {VERSION}")
    header = ShardHeader(width, tokens, tokenizer.hex())
    if header.size != size:
        raise DataError(f"{path}: damaged: {size:,} bytes long, its header says {header.size:,}")
    return header


def map_tokens(path: Path) -> Tokens:
    """The tokens of a shard, [n], mapped into memory read-only."""
    header = read_header(path)
    with open_regular(path) as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(view, dtype=f"<u{header.token_bytes}", offset=HEADER.size)


class TokenStream:
    """The tokens of several shards, as one sequence."""

    def __init__(self, shards: Sequence[tuple[Path, int]]) -> None:
        """`shards`: path and number of tokens of each shard."""
        self.paths = [path for path, _ in shards]
        self.starts = [0, *accumulate(count for _, count in shards)]
        self.map_tokens = lru_cache(maxsize=MAX_MAPPED_SHARDS)(lambda shard: map_tokens(self.paths[shard]))

    def __len__(self) -> int:
        return self.starts[-1]

    def path_of(self, position: int) -> Path:
        """The shard that holds a token."""
        return self.paths[bisect_right(self.starts, position) - 1]

    def read(self, start: int, out: NDArray[np.int64]) -> None:
        """Fill `out`, [n], with the tokens [start, start + n)."""
        if start < 0 or start + len(out) > len(self):
            raise IndexError(f"tokens [{start:,}, {start + len(out):,}) of a stream of {len(self):,}")
        shard = bisect_right(self.starts, start) - 1
        done = 0
        while done < len(out):
            tokens = self.map_tokens(shard)
            offset = start + done - self.starts[shard]
            part = tokens[offset : offset + len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)
            shard += 1
