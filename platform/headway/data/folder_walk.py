"""Lists what lies below a folder, each real file once: links are followed, wherever they lead, and never twice."""

import fnmatch
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

AGAIN = "behind a link, and read already"
"""Why a link is left out."""


@dataclass
class FolderWalk:
    """One walk below the folder `root`.

    Attributes:
        enters: whether a folder is entered, by its name and its real path.
        hidden: whether names that start with a dot are listed.
        levels: how many levels are listed; None for all.
    """

    root: Path
    enters: Callable[[str, str], bool]
    hidden: bool = False
    levels: int | None = None
    files: list[tuple[str, Path]] = field(default_factory=list)
    """Name of each file relative to the root, with `/`, and its path."""
    dropped: Counter[str] = field(default_factory=Counter)
    """What was left out, by reason."""
    _seen: set[str] = field(default_factory=set)
    """Real paths of the folders and files that are listed."""

    def run(self) -> "FolderWalk":
        """List everything. What is there by its own name comes first, so a link to it is the one that is left out."""
        links = self._list("", os.path.realpath(self.root))
        while links:
            name, real = links.pop(0)
            if real in self._seen:
                self.dropped[AGAIN] += 1
            elif Path(real).is_dir():
                links += self._list(f"{name}/", real)
            else:
                self._add(name, self.root / name, real)
        return self

    def _list(self, prefix: str, folder: str) -> list[tuple[str, str]]:
        """List a real folder and those below it. Returns the links in them: the name and the real path of each."""
        links, folders = list[tuple[str, str]](), [(prefix, folder)]
        while folders:
            prefix, folder = folders.pop()
            self._seen.add(folder)
            try:
                with os.scandir(folder) as entries:
                    inside = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.dropped[f"folder unreadable: {error.strerror}"] += 1
                continue
            for entry in inside:
                name, real = prefix + entry.name, os.path.join(folder, entry.name)  # noqa: PTH118 - millions of them
                if entry.name.startswith(".") and not self.hidden:
                    continue
                if entry.is_symlink():
                    real = os.path.realpath(real)
                    if self._goes_on(name, real) or not Path(real).is_dir():
                        links.append((name, real))
                elif not entry.is_dir():
                    self._add(name, self.root / name, real)
                elif self._goes_on(name, real):
                    if real in self._seen:
                        self.dropped[AGAIN] += 1
                    else:
                        folders.append((f"{name}/", real))
        return links

    def _goes_on(self, name: str, real: str) -> bool:
        """Whether the walk enters a folder."""
        below = self.levels is None or name.count("/") + 1 < self.levels
        return below and self.enters(name.rpartition("/")[2], real)

    def _add(self, name: str, path: Path, real: str) -> None:
        self._seen.add(real)
        self.files.append((name, path))


def matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a path matches a glob, name by name: `**` is any number of folders, and no wildcard is a leading dot."""
    if not parts or not names:
        return not parts and not names
    part, *rest = parts
    if part == "**" and rest and matches(names, rest):
        return True
    if names[0].startswith(".") and not part.startswith("."):
        return False
    if part == "**":
        return (not rest and len(names) == 1) or matches(names[1:], parts)
    return fnmatch.fnmatchcase(names[0], part) and matches(names[1:], rest)
