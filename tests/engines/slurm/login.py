"""Where users of a cluster are: its client programs, and what they say."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tests.engines.slurm.fetch import search_path

PREFIX = Path(__file__).parents[3] / ".engines" / "slurm"
POLL_SECONDS = 0.1
"""Between two questions to SLURM [s]."""

ENDS = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"})
"""States of a job that SLURM itself will not run again."""

Show = dict[str, str]
"""A record of `scontrol show`."""


class Login:
    """A login node of the cluster whose files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": search_path(PREFIX.resolve())}
        """What a client needs; jobs inherit it from their submitter."""

    def client(self, *words: str) -> str:
        """What a client program says; raises `RuntimeError` with its complaint if it fails."""
        done = subprocess.run(
            words, env={**os.environ, **self.environment}, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def submit(self, script: str, *options: str) -> str:
        """Submit a job that runs lines of shell, and return its id; what it says goes to `FOLDER/<id>.out`."""
        return self.client("sbatch", "--parsable", f"--output={self.folder}/%j.out", *options, f"--wrap={script}")

    def records(self, kind: str, name: str) -> list[Show]:
        """What `scontrol show job|node|partition NAME` lists; a job array has a record per element that differs."""
        lines = self.client("scontrol", "-o", "show", kind, name).splitlines()
        return [dict(reversed(re.findall(r"([A-Z][\w:/]*)=(.*?)(?= [A-Z][\w:/]*=| *$)", line))) for line in lines]

    def show(self, kind: str, name: str) -> Show:
        """The one record of a job, node or partition."""
        (record,) = self.records(kind, name)
        return record

    def await_job(self, job: str, goal: Collection[str] | Callable[[Show], bool], seconds: float = 120.0) -> Show:
        """Wait until a job (or array element `A_a`) is in one of the states `goal`, or until `goal` holds of it.

        Raises `TimeoutError` with the job's last record and the daemons' logs; at once if the goal is a state that a
        job which has ended will not reach.
        """
        holds = goal if callable(goal) else lambda record: record["JobState"] in goal
        ends = frozenset[str]() if callable(goal) else ENDS
        start = time.monotonic()
        while not holds(record := self.show("job", job)):
            waited = time.monotonic() - start
            if waited > seconds or record["JobState"] in ends:
                raise TimeoutError(f"job {job} after {waited:.1f} s: {record}\n{self.logs()}")
            time.sleep(POLL_SECONDS)
        return record

    def await_node(self, node: str, state: str, seconds: float = 120.0) -> None:
        """Wait until a node's state has `state` in it, such as IDLE or DOWN; raises as `await_job` does."""
        deadline = time.monotonic() + seconds
        while state not in (seen := self.show("node", node)["State"]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{node} after {seconds:g} s: {seen}, not {state}\n{self.logs()}")
            time.sleep(POLL_SECONDS)

    def logs(self, lines: int = 15) -> str:
        """The end of each daemon's log, or of what it said if it did not come as far as a log."""
        folder, sections = self.folder / "log", []
        for name in sorted({path.stem for path in folder.iterdir()}):
            for path in (folder / f"{name}.log", folder / f"{name}.out"):
                if path.exists() and (tail := path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]):
                    sections += [f"--- {path}", *tail]
                    break
        return "\n".join(sections)
