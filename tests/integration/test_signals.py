"""A run that is asked to stop, by any signal at any moment, whatever its output is, stops with all its tokens."""

import fcntl
import itertools
import os
import pty
import random
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from headway.runs.run_log import read_records
from tests.integration.training import DEADLINE, Place, until
from tests.integration.zygote import Command

pytestmark = [pytest.mark.slow, pytest.mark.spread]
SEED = int(os.environ.get("HEADWAY_SIGNAL_SEED", "20261127"))
POINTS = int(os.environ.get("HEADWAY_SIGNAL_POINTS", "12"))
"""Number of points, of all 60."""
SIGNALS = ("SIGTERM", "SIGHUP")
MOMENTS = {"start": -1, "middle": 2048, "end": 18432}
"""The position that is committed first [tokens]."""
OUTPUTS = ("terminal", "file", "pipe", "full device", "closed")
DELAYS = {"start": 1.0, "middle": 0.3, "end": 0.3}
"""Largest delay after the moment [s]."""
ALL = list(itertools.product(SIGNALS, MOMENTS, ("1", "2"), OUTPUTS))


@dataclass
class Output:
    """What standard output and error of a training are."""

    kind: str
    descriptor: int
    """For the training."""
    reader: int = -1
    """The other end of a terminal or a pipe; nobody reads."""

    @classmethod
    @contextmanager
    def opened(cls, kind: str, folder: Path) -> Iterator["Output"]:
        """Open an output of this kind."""
        with ExitStack() as files:
            reader = -1
            if kind == "terminal":
                reader, writer = pty.openpty()
            elif kind == "pipe":
                reader, writer = os.pipe()
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # soon full
            else:
                path = {"file": folder / "output", "full device": Path("/dev/full")}.get(kind, Path(os.devnull))
                writer = os.open(path, os.O_WRONLY | os.O_CREAT)
            files.callback(os.close, writer)
            output = cls(kind, writer, reader)
            files.callback(output.hang_up)
            yield output

    def hang_up(self) -> None:
        """Close the other end: as a terminal's window that is closed."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


def session(leader: int) -> list[int]:
    """The processes of a session, but for those that have ended."""
    members = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
        except ProcessLookupError:
            continue
    return members


@pytest.mark.parametrize("point", random.Random(SEED).sample(ALL, POINTS), ids=" ".join)
def test_a_signal_loses_no_token_and_leaves_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: tuple[str, ...]
) -> None:
    """The code is 75, or 0 if all was done; the run stands where its last step ended."""
    name, moment, ranks, kind = point
    number, dice = signal.Signals[name], random.Random(f"{SEED} {point}")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    words = ["train", str(place.recipe), "--run", "r", "--store", str(place.store), "--nproc", ranks, "--json"]
    with Output.opened(kind, tmp_path) as output:
        command = Command(words, output.descriptor, closed=kind == "closed")
        try:
            until(
                lambda: place.history("r").tokens >= MOMENTS[moment] or command.poll() is not None, "it does not train"
            )
            time.sleep(dice.uniform(0.0, DELAYS[moment]))
            if command.poll() is None:
                if output.kind == "terminal" and number == signal.SIGHUP:
                    output.hang_up()
                else:
                    dice.choice([os.kill, os.killpg])(command.pid, number)
            code = command.wait(DEADLINE)
            until(lambda: not session(command.pid), "a process is left")
        finally:
            for each in session(command.pid):
                os.kill(each, signal.SIGKILL)
    history = place.history("r")
    assert not history.damaged
    if moment == "start" and not history.attempts:
        assert code in {75, -number}
    else:
        assert code == (0 if history.done else 75)
        ended = history.attempts[-1].end
        assert ended
        steps = [record["tokens"] for _, record in read_records(place.objects, "r") if record["event"] == "step.done"]
        assert history.tokens == ended.tokens >= max(steps, default=0)
    assert [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor")] == []
