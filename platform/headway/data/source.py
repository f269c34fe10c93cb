"""The input files of a source, in the same order on every machine."""

import glob
import os
import re
import stat
import sys
import sysconfig
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from headway.data.folder_walk import EVERYTHING, FolderWalk
from headway.data.json_lines import first_records, holds_json_lines
from headway.errors import DataError, UsageError
from headway.localfiles import cache_folder, local_path
from headway.recipe import Source

Kind = Literal["text", "jsonl", "parquet"]
Codec = Literal["plain", "gzip", "zstd"]

STDLIB = "python:stdlib"
INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders inside the standard library's folder that hold installed packages."""
TARGET = "folder that the build writes to"
CACHE = "cache of Headway"
"""Reasons to leave a folder out that changes while a build runs."""
UNKNOWN_ENDING = "unknown ending"
SHOWN_ENDING = re.compile(r"(?:\.[a-z0-9_+-]{1,12}){0,2}")
"""An unknown ending that is shown."""
MAX_ENDINGS = 64
"""How many unknown endings are counted by themselves: a name may end in anything."""
JSONL_ENDINGS = frozenset({".jsonl", ".ndjson"})
CODECS: dict[str, Codec] = {".gz": "gzip", ".zst": "zstd"}
SAMPLED_FILES = 8
"""Files whose first records are looked at for the key of the text."""
SHOWN_KEYS = 20
# fmt: off
TEXT_ENDINGS = frozenset({
    "",  # README, Makefile, LICENSE
    ".asm", ".bash", ".bat", ".c", ".cc", ".cfg", ".clj", ".cmake", ".cpp", ".cs", ".css", ".csv", ".cu",
    ".cuh", ".cxx", ".dart", ".el", ".erl", ".ex", ".exs", ".f", ".f90", ".go", ".graphql", ".groovy", ".h",
    ".hh", ".hpp", ".hs", ".htm", ".html", ".hxx", ".inc", ".ini", ".ipynb", ".java", ".jl", ".js", ".json",
    ".jsx", ".kt", ".kts", ".less", ".lisp", ".log", ".lua", ".m", ".markdown", ".md", ".ml", ".mli", ".mm",
    ".nim", ".nix", ".org", ".pas", ".php", ".pl", ".pm", ".proto", ".ps1", ".py", ".pyi", ".pyx", ".r",
    ".rb", ".rs", ".rst", ".s", ".sass", ".scala", ".scm", ".scss", ".sh", ".sol", ".sql", ".svelte",
    ".swift", ".tcl", ".tex", ".text", ".tf", ".toml", ".ts", ".tsv", ".tsx", ".txt", ".v", ".vb", ".vhd",
    ".vhdl", ".vim", ".vue", ".xml", ".yaml", ".yml", ".zig", ".zsh",
})
# fmt: on


@dataclass(frozen=True)
class SourceFile:
    """One input file.

    Attributes:
        name: path relative to the source's root, with `/`; equal on every machine.
        path: path on this machine.
        size: length [bytes].
        modified: time of the last change [ns], to detect changes between two runs of a build.
    """

    name: str
    path: str
    size: int
    modified: int
    kind: Kind
    codec: Codec


@dataclass(frozen=True)
class Inventory:
    """The files of one source, sorted by name, and the number of files left out, by reason.

    Attributes:
        total: the files of both kinds; a link or a folder that is left out as a whole counts as one.
    """

    files: list[SourceFile]
    dropped: Counter[str] = field(default_factory=Counter)
    total: int = 0

    @property
    def size(self) -> int:
        """Length of all files together [bytes]."""
        return sum(file.size for file in self.files)


def inventory(name: str, source: Source, *, exclude: Path) -> Inventory:
    """List the files of a source: a file, a folder (searched recursively), a glob or `python:stdlib`.

    Skips hidden files and folders below the root. Leaves out the folder `exclude`, which receives the shards, Headway's
    cache, built data and run stores. Follows links, and lists each real file once.

    Raises:
        DataError: there is no file at the source's path, or no document has the key of the text.
    """
    path = local_path(source.path)
    own = {str(exclude): TARGET, **_cache()}
    if source.path == STDLIB:
        walk = FolderWalk(Path(sysconfig.get_path("stdlib")), ("**", "*.py"), INSTALLED, own).run()
    elif path.is_dir():
        walk = FolderWalk(path, EVERYTHING, (), own).run()
    elif glob.has_magic(source.path) and not path.exists():
        walk = _match(path, own)
    else:
        walk = FolderWalk(path.parent, files=[(path.name, path)] if path.exists() else [])
    dropped, total = walk.dropped, len(walk.files) + walk.dropped.total()
    if not walk.files:
        counts = ", ".join(f"{number:,} × {reason}" for reason, number in sorted(dropped.items()))
        raise DataError(
            f"data.sources.{name}: no files at {source.path!r} (relative to {Path.cwd()}; "
            f"left out: {counts or 'nothing'}); give a file, a folder, a glob or python:stdlib"
        )
    files: list[SourceFile] = []
    for file, path in sorted(walk.files):
        result = _inspect(file, path, source.text_key) if is_text(file) else "name that is not UTF-8"
        if isinstance(result, str):
            many = result.startswith(UNKNOWN_ENDING) and result not in dropped and len(dropped) >= MAX_ENDINGS
            dropped[UNKNOWN_ENDING if many else result] += 1
        else:
            files.append(result)
    _check_text_key(name, source.text_key, files)
    return Inventory(files, dropped, total)


def describe(source: Source) -> str:
    """The path of a source, with the version of Python for the standard library."""
    return f"{source.path} of Python {sys.version.split()[0]}" if source.path == STDLIB else source.path


def file_format(name: str) -> tuple[Kind, Codec] | None:
    """Kind of documents and compression, by the file name's endings; None for an unknown ending."""
    codec = CODECS.get(PurePosixPath(name.lower()).suffix, "plain")
    ending = file_ending(name)
    if ending in JSONL_ENDINGS:
        return "jsonl", codec
    if ending == ".parquet" and codec == "plain":
        return "parquet", codec
    return ("text", codec) if ending in TEXT_ENDINGS else None


def file_ending(name: str) -> str:
    """The ending of a file's name, without that of its compression."""
    path = PurePosixPath(name.lower())
    return path.with_suffix("").suffix if path.suffix in CODECS else path.suffix


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8, as the documents that hold it are."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _inspect(name: str, path: Path, text_key: str) -> SourceFile | str:
    """The file at `path`, or the reason to leave it out."""
    format_ = file_format(name)
    if format_ is None:
        ending = "".join(PurePosixPath(name).suffixes[-2:])
        return f"{UNKNOWN_ENDING} {ending}" if SHOWN_ENDING.fullmatch(ending.lower()) else UNKNOWN_ENDING
    try:
        status = path.stat()
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if not os.access(path, os.R_OK):
        return "unreadable: Permission denied"
    if not status.st_size:
        return "empty"
    kind, codec = format_
    if kind == "text" and file_ending(name) == ".json" and holds_json_lines(str(path), codec, text_key):
        kind = "jsonl"
    return SourceFile(name, str(path), status.st_size, status.st_mtime_ns, kind, codec)


def _check_text_key(name: str, text_key: str, files: list[SourceFile]) -> None:
    """Refuse a source of nothing but JSON lines if none of the first records has the key of the text.

    Raises:
        DataError: it names the keys that there are.
    """
    if any(file.kind != "jsonl" for file in files):
        return
    records = [record for file in files[:SAMPLED_FILES] for record in first_records(file.path, file.codec)]
    if records and not any(text_key in record for record in records):
        keys = sorted({key for record in records for key in record})
        shown = ", ".join(repr(key) for key in keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
        raise DataError(f"data.sources.{name}: no document has the key {text_key!r}; set text_key to one of: {shown}")


def _match(pattern: Path, own: Mapping[str, str]) -> FolderWalk:
    """All files that match a glob, with their names relative to the folder before the first wildcard."""
    first_wild = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    root, wild = Path(*pattern.parts[:first_wild]), pattern.parts[first_wild:]
    return FolderWalk(root, wild, (), own).run()


def _cache() -> dict[str, str]:
    """The real path of the cache, and why it is left out. A user without a home folder has no cache."""
    try:
        return {str(cache_folder().resolve()): CACHE}
    except UsageError:
        return {}
