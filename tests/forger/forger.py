"""Somebody who may write anything into a store, and who knows how digests are made."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.forger import documents, values

HALF = "0123456789abcdef" * 2
"""Name of an unfinished write."""
NAMES = (
    "20261126.json", "99999999999999.json", "²²².json", "00000002 (copy).json", ".DS_Store", "notes.txt", "a\x1b[31mb",
    "000000000002000-00000001", "2026-11-01", "00000-of-00002.safetensors", "manifest.json", HALF, "[bold]", "eval-1",
    "heartbeat.json", "00000003.jsonl", "00000200.json", "~x", "submissions", "journal", "tale (copy)", "good", "-rf",
)  # fmt: skip
"""Names that people, tools and forgers put beside what is ours."""
HEADER = {"seq", "nonce", "previous", "digest", "kind"}
"""Fields of entries that no other entry has the same of."""
KEPT = "good"
"""The run that the forger leaves alone."""
GROWN = 50_000_000_000
"""Length of a file that takes no room [bytes]."""


class Forger:
    """Changes the store in the folder `root`, as a seed says. `home` is the victim's folder."""

    def __init__(self, root: Path, home: Path, seed: int, *, only_objects: bool = False) -> None:
        """`only_objects` leaves out what a bucket cannot hold: links, pipes, devices and folders."""
        self.root, self.home, self.only_objects = root, home, only_objects
        self.draw = random.Random(seed)
        self.story: list[str] = []
        """What was done, in order."""
        self.touched: list[str] = []
        """The names in the store that were written to, in order."""

    def forge(self) -> None:
        """A few forgeries. Those of fields come first, for they need documents that can be read."""
        for _ in range(self.draw.choice((0, 1, 1, 1, 2, 3))):
            self._field()
        for _ in range(self.draw.choice((0, 0, 1, 1, 2)) if self.story else self.draw.choice((1, 2))):
            self._file()

    def _field(self) -> None:
        files = [path for path in self._files() if path.suffix in {".json", ".jsonl"} and path.stat().st_size < 1 << 20]
        kind = self.draw.choice(sorted({kind_of(path) for path in files}))
        file = self.draw.choice([path for path in files if kind_of(path) == kind])
        before = file.read_bytes()
        try:
            if file.suffix == ".jsonl":
                self._line(file)
            else:
                document = json.loads(before)
                changed = self._changed(document, file)
                documents.rewrite(file, changed)
        except (ValueError, RecursionError, TypeError, KeyError):  # an earlier forgery is in the way
            file.write_bytes(before)

    def _line(self, file: Path) -> None:
        lines = file.read_bytes().splitlines()
        number = self.draw.randrange(len(lines))
        lines[number] = documents.encode(self._changed(json.loads(lines[number]), file))
        file.write_bytes(b"\n".join(lines) + b"\n")

    def _changed(self, document: Any, file: Path) -> Any:
        """The document with another value in one of its fields, or another document."""
        spots = by_name(documents.places(document))
        if not spots or self.draw.random() < 0.03:
            value = self._hostile(document)
            self.story.append(f"{self._name(file)} = {value!r:.80}")
            return None if value is values.MISSING else value
        if isinstance(document, dict) and file.suffix == ".json" and self.draw.random() < 0.25:
            return self._spliced(document, file)
        holder, key = self.draw.choice(spots[self.draw.choice(sorted(spots))])
        odd = self.draw.random() < 0.6
        value = self._hostile(holder[key]) if odd else values.nearly(self.draw, holder[key])
        self.story.append(f"{self._name(file)}: {key!r} = {value!r:.80}, was {holder[key]!r:.80}")
        if value is values.MISSING:
            del holder[key]
        else:
            holder[key] = value
        return document

    def _spliced(self, document: dict[str, Any], file: Path) -> dict[str, Any]:
        """The document with fields of another of its kind, whose digests are right."""
        twins = [
            path for path in sorted(self.root.rglob("*.json")) if kind_of(path) == kind_of(file) and path.is_file()
        ]
        read = [(path, json.loads(path.read_bytes())) for path in twins if small(path)]
        same = [twin for twin in read if isinstance(twin[1], dict) and twin[1].get("kind") == document.get("kind")]
        name, source = self.draw.choice(same)
        shared = sorted(document.keys() & source.keys() - HEADER)
        fields = self.draw.sample(shared, min(len(shared), self.draw.choice((1, 1, 2, 3, 9))))
        self.story.append(f"{self._name(file)}: {', '.join(fields)} of {self._name(name)}")
        return document | {field: source[field] for field in fields}

    def _hostile(self, was: Any) -> Any:
        keys = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*"))
        own = [key for key in keys if key.startswith(f"runs/{KEPT}/")]
        return values.hostile(self.draw, self.home, was, own + keys)

    def _file(self) -> None:
        ways: list[Callable[[Path], None]] = [cut, grow, fill, Path.unlink, truncate, self._copy]
        if not self.only_objects:
            ways += [self._link, self._link, self._device, pipe, folder]
        way = self.draw.choice(ways)
        at = self._twin() if way == self._link and self.draw.random() < 0.7 else self._place()
        if not at.is_file() and way in {cut, Path.unlink, self._copy}:
            way = fill
        self.story.append(f"{self._name(at)}: {way.__name__}")
        clear(at, unless={cut, grow, fill, Path.unlink, self._copy}, way=way)
        way(at)

    def _place(self) -> Path:
        """A file, a folder, or a new place in a folder."""
        kind = self.draw.random()
        if kind < 0.45:
            return self.draw.choice(self._files())
        folders = [path for path in self._below() if path.is_dir() and not path.is_symlink()]
        if kind < 0.65 and not self.only_objects:
            return self.draw.choice(folders)
        parent = self.draw.choice([*folders, self.root / "runs", self.root / "models", self.root / ".incoming"])
        at = parent / self.draw.choice(NAMES)
        return at if at != self.root / "runs" / KEPT else parent / "other"

    def _twin(self) -> Path:
        """A place in the store whose name something in the victim's folder has, as a link that does harm needs."""
        names = {path.name for path in self.home.rglob("*")}
        return self.draw.choice([*(path for path in self._below() if path.name in names), self.root / ".incoming"])

    def _copy(self, at: Path) -> None:
        """Put another file of the store in this place."""
        data = self.draw.choice(self._files()).read_bytes()
        at.write_bytes(data)

    def _link(self, at: Path) -> None:
        below = sorted(self.home.rglob("*"))
        twins = [path for path in below if path.name == at.name]
        target = self.draw.choice(twins or [self.home, *below, self.root / "runs" / KEPT, at, Path("/etc")])
        self.story[-1] += f" to {target}"
        at.symlink_to(target)

    def _device(self, at: Path) -> None:
        at.symlink_to(self.draw.choice(("/dev/zero", "/dev/tty", "/proc/self/environ", "/dev/stdin")))

    def _files(self) -> list[Path]:
        return [path for path in self._below() if path.is_file() and not path.is_symlink() and small(path)]

    def _below(self) -> list[Path]:
        """All that may be changed, in order."""
        kept = self.root / "runs" / KEPT
        found = [path for path in self.root.rglob("*") if kept not in {path, *path.parents}]
        return sorted(path for path in found if path != self.root / "runs")

    def _name(self, path: Path) -> str:
        name = str(path.relative_to(self.root))
        self.touched.append(name)
        return name


def kind_of(path: Path) -> str:
    """Files of one kind have one form: the entries of journals, say, or manifests."""
    return path.name if path.name in {"manifest.json", "heartbeat.json"} else path.parent.name.lstrip("0123456789-")


def by_name(spots: Iterable[documents.Place]) -> dict[str, list[documents.Place]]:
    """Fields by their names, so that one that is there a thousand times is not drawn a thousand times as often."""
    found: dict[str, list[documents.Place]] = {}
    for holder, key in spots:
        found.setdefault(key if isinstance(holder, dict) else "[]", []).append((holder, key))
    return found


def small(path: Path) -> bool:
    """Whether a file can be read here."""
    return path.stat().st_size < GROWN


def clear(at: Path, *, unless: set[Any], way: Any) -> None:
    """Make room at a place, and the folders above it."""
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_dir() and not at.is_symlink():
        shutil.rmtree(at)
    elif way not in unless:
        at.unlink(missing_ok=True)


def cut(at: Path) -> None:
    """Leave half of a file."""
    os.truncate(at, at.stat().st_size // 2)


def grow(at: Path) -> None:
    """Let a file seem to have 50 GB."""
    at.touch()
    os.truncate(at, GROWN)


def fill(at: Path) -> None:
    """Fill a file with NULs, as a power cut does."""
    at.write_bytes(bytes(at.stat().st_size if at.exists() else 100))


def truncate(at: Path) -> None:
    """Leave an empty file."""
    at.touch()


def pipe(at: Path) -> None:
    """Make a pipe that nobody writes to."""
    os.mkfifo(at)


def folder(at: Path) -> None:
    """Make a folder with a file in it."""
    at.mkdir()
    (at / "x").write_bytes(b"mine")
