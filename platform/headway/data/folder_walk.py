"""Lists what matches a pattern below a folder, each real file once: links are followed, wherever they lead.

A folder is listed once for each part of the pattern that may match below it, so links that lead back come to an end.
"""

import fnmatch
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headway.data.artifact import artifact_kind

AGAIN = "behind a link, and read already"
"""Why a link is left out."""
EVERYTHING = ("**", "*")
"""Pattern of all files at any depth."""

Places = frozenset[int]
"""Parts of a pattern, by index, that the next name of a path may match."""


@dataclass
class FolderWalk:
    """One walk below the folder `root`.

    Attributes:
        pattern: a glob, name by name.
        skip: names of folders that are no part of the source.
        own: folders that this build writes to, by real path, and why each is left out.
    """

    root: Path
    pattern: Sequence[str] = EVERYTHING
    skip: Collection[str] = ()
    own: Mapping[str, str] = field(default_factory=dict)
    files: list[tuple[str, Path]] = field(default_factory=list)
    """Name of each file relative to the root, with `/`, and its path."""
    dropped: Counter[str] = field(default_factory=Counter)
    """What was left out, by reason: files, links, and folders as one."""
    _listed: set[tuple[str, Places]] = field(default_factory=set)
    """Folders that are listed, by real path, and where in the pattern."""
    _real_files: set[str] = field(default_factory=set)
    """Real paths of the files."""

    def run(self) -> "FolderWalk":
        """List everything. What is there by its own name comes first, so a link to it is the one that is left out."""
        links = self._list("", os.path.realpath(self.root), start(self.pattern))
        while links:
            following: list[tuple[str, str, Places]] = []
            for name, real, places in links:
                if not os.path.isdir(real):  # noqa: PTH112 - Path.is_dir raises where a link leads to a name too long
                    self._add(name, name.rpartition("/")[2], real, places)
                elif below := self._below(name, real, places):
                    following += self._list(f"{name}/", real, below)
            links = following
        return self

    def _list(self, prefix: str, folder: str, places: Places) -> list[tuple[str, str, Places]]:
        """List a real folder and those below it. Returns the links in them: the name and real path of each."""
        links, folders = list[tuple[str, str, Places]](), [(prefix, folder, places)]
        while folders:
            prefix, folder, places = folders.pop()
            self._listed.add((folder, places))
            try:
                with os.scandir(folder) as entries:
                    inside = {entry.name: entry for entry in entries}
            except OSError as error:
                self.dropped[f"folder unreadable: {error.strerror}"] += 1
                continue
            if kind := artifact_kind(folder, inside):
                self.dropped[kind] += 1
                continue
            for name, entry in sorted(inside.items()):
                real = os.path.join(folder, name)  # noqa: PTH118 - millions of them
                if entry.is_symlink():
                    links.append((prefix + name, _target(real), places))
                elif not entry.is_dir():
                    self._add(prefix + name, name, real, places)
                elif below := self._below(prefix + name, real, places):
                    folders.append((f"{prefix}{name}/", real, below))
        return links

    def _below(self, name: str, real: str, places: Places) -> Places:
        """Where in the pattern the names in a folder are; nowhere if the walk does not enter it."""
        last = name.rpartition("/")[2]
        below = enter(self.pattern, places, last)
        if not below or last in self.skip:
            return frozenset()
        if reason := self.own.get(real):
            self.dropped[reason] += 1
        elif (real, below) in self._listed:
            self.dropped[AGAIN] += 1
        else:
            return below
        return frozenset()

    def _add(self, name: str, last: str, real: str, places: Places) -> None:
        """Add a file that matches by its last name, unless it is one already."""
        if not ends(self.pattern, places, last):
            return
        if real in self._real_files:
            self.dropped[AGAIN] += 1
        else:
            self._real_files.add(real)
            self.files.append((name, self.root / name))


def _target(link: str) -> str:
    """Where a link leads; where it cannot be followed, the link itself, which then cannot be read."""
    try:
        return os.path.realpath(link)
    except OSError:
        return link


def start(pattern: Sequence[str]) -> Places:
    """The parts that the first name of a path may match: `**` is any number of folders, or none."""
    return frozenset(_with_next(pattern, 0))


def enter(pattern: Sequence[str], places: Places, name: str) -> Places:
    """The parts that the next name may match, below a folder that matches; none below one that does not."""
    below: set[int] = set()
    for place in places:
        if _fits(pattern[place], name):
            below.update(_with_next(pattern, place if pattern[place] == "**" else place + 1))
    return frozenset(below)


def ends(pattern: Sequence[str], places: Places, name: str) -> bool:
    """Whether a path matches whose last name this is."""
    return len(pattern) - 1 in places and _fits(pattern[-1], name)


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob, name by name."""
    places = start(pattern)
    for name in names[:-1]:
        places = enter(pattern, places, name)
    return ends(pattern, places, names[-1])


def _with_next(pattern: Sequence[str], place: int) -> Iterator[int]:
    while place < len(pattern):
        yield place
        if pattern[place] != "**":
            return
        place += 1


def _fits(part: str, name: str) -> bool:
    """Whether a name matches one part; no wildcard is a leading dot."""
    if name[0] == "." and part[0] != ".":
        return False
    return part == "*" or part == "**" or fnmatch.fnmatchcase(name, part)  # noqa: PLR1714 - for millions of names
