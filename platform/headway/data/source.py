"""The files of a source: what a recipe's `path` names, in an order that every machine agrees on."""

import glob
import os
import stat
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from headway.errors import DataError
from headway.recipe import Source

Kind = Literal["text", "jsonl", "parquet"]
Codec = Literal["plain", "gzip", "zstd"]

STDLIB = "python:stdlib"
INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders in the standard library's that hold what is installed beside it."""
JSONL_ENDINGS = frozenset({".jsonl", ".ndjson"})
CODECS: dict[str, Codec] = {".gz": "gzip", ".zst": "zstd"}
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
        name: path below the source's root, with `/`; equal on every machine.
        path: where it lies on this machine.
        size: length [bytes].
        modified: time of the last change [ns], to notice a change between two runs of a build.
    """

    name: str
    path: str
    size: int
    modified: int
    kind: Kind
    codec: Codec


@dataclass(frozen=True)
class Inventory:
    """The files of one source, sorted by name, and how many were left out for which reason."""

    files: list[SourceFile]
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def size(self) -> int:
        """Length of all files [bytes]."""
        return sum(file.size for file in self.files)


def inventory(name: str, source: Source, *, exclude: Path) -> Inventory:
    """List the files of a source: a file, a folder (searched through), a glob or `python:stdlib`.

    Hidden files and folders below the root, and everything in the folder `exclude` (where the shards go), are
    no part of a source.

    Raises:
        DataError: nothing lies at the source's path.
    """
    found: list[tuple[str, Path]] = []
    if source.path == STDLIB:
        root = Path(sysconfig.get_path("stdlib"))
        found = [(file, path) for file, path in _walk(root, exclude, INSTALLED) if file.endswith(".py")]
    else:
        path = Path(source.path).expanduser()
        if path.is_dir():
            found = _walk(path, exclude)
        elif path.exists():
            found = [(path.name, path)]
        elif glob.has_magic(source.path):
            found = _match(path, exclude)
    if not found:
        raise DataError(
            f"data.sources.{name}: no files at {source.path!r} (seen from {Path.cwd()}); "
            "give a file, a folder, a glob or python:stdlib"
        )
    files: list[SourceFile] = []
    dropped: Counter[str] = Counter()
    for file, place in sorted(found):
        entry = _look(file, place)
        if isinstance(entry, str):
            dropped[entry] += 1
        else:
            files.append(entry)
    return Inventory(files, dropped)


def provenance(source: Source) -> str:
    """Where a source came from, in words for a person."""
    return f"{source.path} of Python {sys.version.split()[0]}" if source.path == STDLIB else source.path


def form(name: str) -> tuple[Kind, Codec] | None:
    """Kind of documents and compression that a file's endings say; None if they say nothing known."""
    path = PurePosixPath(name.lower())
    codec = CODECS.get(path.suffix, "plain")
    ending = path.suffix if codec == "plain" else path.with_suffix("").suffix
    if ending in JSONL_ENDINGS:
        return "jsonl", codec
    if ending == ".parquet" and codec == "plain":
        return "parquet", codec
    return ("text", codec) if ending in TEXT_ENDINGS else None


def _look(name: str, path: Path) -> SourceFile | str:
    """The file at `path`, or the reason why it is left out."""
    known = form(name)
    if known is None:
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
    return SourceFile(name, str(path), status.st_size, status.st_mtime_ns, *known)


def _walk(root: Path, exclude: Path, skip: frozenset[str] = frozenset()) -> list[tuple[str, Path]]:
    """All files below `root`, with their names relative to it; folders called as in `skip` are left out."""
    found = []
    for folder, folders, files in os.walk(root):
        place = Path(folder)
        below = place.relative_to(root).as_posix()
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in skip and (place / name).resolve() != exclude
        ]
        found += [
            (name if below == "." else f"{below}/{name}", place / name) for name in files if not name.startswith(".")
        ]
    return found


def _match(pattern: Path, exclude: Path) -> list[tuple[str, Path]]:
    """All files that a glob names, with their names relative to its part before the first wildcard."""
    fixed = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    root = Path(*pattern.parts[:fixed])
    wild = str(Path(*pattern.parts[fixed:]))
    names = glob.glob(wild, root_dir=root, recursive=True)  # noqa: PTH207 - Path.glob finds hidden files too
    return [
        (path.relative_to(root).as_posix(), path)
        for path in (root / name for name in names)
        if not path.is_dir() and exclude not in path.resolve().parents
    ]
