"""A copy of a folder that is made to be changed, and the state of what lies below a folder."""

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

Tree = dict[str, tuple[int, ...]]
"""What lies below a folder, by path: inode, mode, length, and the times of the last write and change."""


def tree(root: Path) -> Tree:
    """The state of all that lies below a folder. Any write, move or change of rights shows in it."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files, "."):
            path = os.path.join(folder, name)  # noqa: PTH118 - it is called for each command
            status = os.lstat(path)
            # A folder's own times change with what is in it, which shows by itself.
            times = () if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            found[os.path.normpath(path)] = (status.st_ino, status.st_mode, *times)
    return found


def changes(before: Tree, after: Tree) -> dict[str, str]:
    """What happened to each path."""
    gone = dict.fromkeys(before.keys() - after.keys(), "deleted")
    come = dict.fromkeys(after.keys() - before.keys(), "made")
    return gone | come | {path: "changed" for path in before.keys() & after.keys() if before[path] != after[path]}


class FolderCopy:
    """A copy of the folder `source` at `place`."""

    def __init__(self, source: Path, place: Path) -> None:
        self.source, self.place = source, place
        shutil.copytree(source, place)
        self._state = tree(place)

    def restore(self) -> None:
        """Make it like its source again, whatever was done to it. Only what was changed is copied anew."""
        for path in sorted(changes(self._state, tree(self.place))):
            remove(Path(path))
        for original in sorted(self.source.rglob("*")):
            copied = self.place / original.relative_to(self.source)
            if not copied.exists():
                copied.mkdir() if original.is_dir() else shutil.copy2(original, copied)
        self._state = tree(self.place)


def remove(path: Path) -> None:
    """Remove whatever there is at a place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.parent.is_dir():
        path.unlink(missing_ok=True)


def describe(found: Mapping[str, str]) -> list[str]:
    """What happened to paths, a line each."""
    return [f"{path}: {what}" for path, what in found.items()]
