"""Process tree: all processes below this one, which end together."""

import os
import signal
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.02
"""Interval between looks at processes that are ending [s]."""
END_SECONDS = 15.0
"""How long killed processes may take to end [s]; a large one gives back its memory first."""
TRACKER = b"multiprocessing.resource_tracker"
"""Words in the command line of Python's resource tracker."""
TRACKER_SECONDS = 2.0
"""How long resource trackers may take to remove shared memory [s]."""


def kill_descendants(spared: frozenset[int] = frozenset()) -> bool:
    """Kill all processes below this one but those below its children `spared`; returns whether all have ended.

    Python's resource trackers get time: they remove the shared memory that the others leave, and end by themselves.
    Descendants whose parents have ended are found only if this process adopts them (`adopt_orphans`).
    """
    start = time.monotonic()
    while processes := descendants(spared):
        seconds = time.monotonic() - start
        if seconds > END_SECONDS:
            return False
        for process in processes:
            if seconds > TRACKER_SECONDS or not _is_tracker(process):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
            with suppress(ChildProcessError):  # it is a child of another process, which waits for it
                os.waitpid(process, os.WNOHANG)
        time.sleep(POLL_SECONDS)
    return True


def descendants(spared: frozenset[int] = frozenset()) -> list[int]:
    """The processes below this one but those below its children `spared`, parents first."""
    below = children()
    processes = [each for each in below[os.getpid()] if each not in spared]
    for process in processes:  # which grows meanwhile
        processes += below[process]
    return processes


def children() -> defaultdict[int, list[int]]:
    """All processes of this machine by their parents; they may end at any time."""
    processes: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
                processes[int(fields[1])].append(int(folder.name))
    return processes


def _is_tracker(process: int) -> bool:
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return TRACKER in command
