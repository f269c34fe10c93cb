"""The input files of a source, in the same order on every machine."""

import glob
import os
import stat
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from headway.data.folder_walk import FolderWalk, matches
from headway.data.json_lines import first_records, holds_json_lines
from headway.errors import DataError
from headway.localfiles import local_path
from headway.recipe import Source

Kind = Literal["text", "jsonl", "parquet"]
Codec = Literal["plain", "gzip", "zstd"]

STDLIB = "python:stdlib"
INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders inside the standard library's folder that hold installed packages."""
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
    """The files of one source, sorted by name, and the number of files left out, by reason."""

    files: list[SourceFile]
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def size(self) -> int:
        """Length of all files together [bytes]."""
        return sum(file.size for file in self.files)


def inventory(name: str, source: Source, *, exclude: Path) -> Inventory:
    """List the files of a source: a file, a folder (searched recursively), a glob or `python:stdlib`.

    Skips hidden files and folders below the root, and the folder `exclude`, which receives the shards. Follows links,
    and lists each real file once.

    Raises:
        DataError: there is no file at the source's path, or no document has the key of the text.
    """
    paths: list[tuple[str, Path]] = []
    dropped: Counter[str] = Counter()
    path = local_path(source.path)
    if source.path == STDLIB:
        walk = _below(Path(sysconfig.get_path("stdlib")), exclude, INSTALLED)
        paths = [(file, path) for file, path in walk.files if file.endswith(".py")]
    elif path.is_dir() or (glob.has_magic(source.path) and not path.exists()):
        walk = _below(path, exclude) if path.is_dir() else _match(path, exclude)
        paths, dropped = walk.files, walk.dropped
    elif path.exists():
        paths = [(path.name, path)]
    if not paths:
        raise DataError(
            f"data.sources.{name}: no files at {source.path!r} (relative to {Path.cwd()}); "
            "give a file, a folder, a glob or python:stdlib"
        )
    files: list[SourceFile] = []
    for file, path in sorted(paths):
        result = _inspect(file, path, source.text_key) if is_text(file) else "name that is not UTF-8"
        if isinstance(result, str):
            dropped[result] += 1
        else:
            files.append(result)
    _check_text_key(name, source.text_key, files)
    return Inventory(files, dropped)


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
        return f"unknown ending {''.join(PurePosixPath(name).suffixes[-2:])}"
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


def _below(root: Path, exclude: Path, skip: frozenset[str] = frozenset()) -> FolderWalk:
    """All files below `root`; folders named in `skip` are left out."""
    return FolderWalk(root, lambda name, real: name not in skip and real != str(exclude)).run()


def _match(pattern: Path, exclude: Path) -> FolderWalk:
    """All files that match a glob, with their names relative to the folder before the first wildcard."""
    first_wild = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    root, wild = Path(*pattern.parts[:first_wild]), pattern.parts[first_wild:]
    walk = FolderWalk(
        root,
        lambda _, real: real != str(exclude),
        hidden=any(part.startswith(".") for part in wild),
        levels=None if "**" in wild else len(wild),
    ).run()
    walk.files = [(name, path) for name, path in walk.files if matches(name.split("/"), wild)]
    return walk
