"""How the tests train on SLURM: a real cluster, a run store that its machines share, and jobs with their logs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.engines.slurm.cluster import Cluster
from tests.engines.slurm.login import Show
from tests.integration.training import DEADLINE, Place, send_signal

POLL_SECONDS = 0.1
LONG = ("train.tokens=30720", "evaluation.every_tokens=15360")
"""Overrides of a run that is long enough to be hit, or frozen, while it trains."""


@dataclass
class Site:
    """A cluster, and a place that its machines share."""

    cluster: Cluster
    place: Place
    logs: Path

    def run(self, *words: str, code: int = 0) -> dict[str, Any]:
        """What `headway WORDS --json` prints, if it ends with `code`."""
        done = self.call(*words, "--json")
        assert done.returncode == code, done.stderr
        document: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {"message": done.stderr}
        return document

    def call(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `headway WORDS` on the login node."""
        environment = {**os.environ, **self.cluster.environment, "HEADWAY_STORE": self.place.objects.url}
        command = [sys.executable, "-m", "headway.cli", *words]
        return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, cwd=self.logs)

    def submit(self, name: str, *overrides: str, options: Sequence[str] = ()) -> "Submitted":
        """`headway submit` of one run."""
        words = ["submit", str(self.place.recipe), *overrides, "--name", name, "--logs", str(self.logs), *options]
        return Submitted(self, name, self.run(*words)["job"])

    def ranks(self, node: str) -> list[psutil.Process]:
        """The training processes on a node, as this machine counts processes."""
        parents: dict[psutil.Process, int] = {}
        for process in psutil.process_iter():
            try:
                if "forkserver" in " ".join(process.cmdline()) and self._is_on(node, process.environ()):
                    parents[process] = process.ppid()
            except psutil.Error:
                continue
        servers = {process.pid for process in parents}
        return [process for process, parent in parents.items() if parent in servers]

    def _is_on(self, node: str, environment: dict[str, str]) -> bool:
        """Whether a process with this environment belongs to a node of this cluster, for there may be others."""
        ours = environment.get("SLURM_CONF") == self.cluster.environment["SLURM_CONF"]
        return ours and environment.get("SLURMD_NODENAME") == node


@dataclass
class Submitted:
    """A job, followed by its log and by SLURM."""

    site: Site
    run: str
    job: str

    @property
    def log(self) -> str:
        """All of it."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.site.logs.glob(f"*-{self.job}.out")))

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events in its log."""
        documents = []
        for line in self.log.splitlines():
            try:
                documents.append(json.loads(line))
            except ValueError:
                continue
        return [event for event in documents if isinstance(event, dict) and "event" in event]

    def named(self, name: str) -> list[dict[str, Any]]:
        """Its events of one name."""
        return [event for event in self.events if event["event"] == name]

    def await_event(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for the event `name`, for the `count`-th of them."""
        events: list[dict[str, Any]] = self.await_that(
            lambda: len(self.named(name)) >= count and self.named(name), f"{count} {name}"
        )
        return events

    def await_steps(self, count: int, attempt: int = 1) -> None:
        """Wait until the `attempt`-th attempt has made `count` steps."""

        def made() -> bool:
            claims = self.named("attempt.claimed")
            number = claims[attempt - 1]["attempt"] if len(claims) >= attempt else None
            return [step["attempt"] for step in self.named("step.done")].count(number) >= count

        self.await_that(made, f"{count} steps of attempt {attempt}")

    def freeze(self) -> list[psutil.Process]:
        """Stop its ranks wherever they are, lest the run be done before something happens to it; returns them."""
        ranks = self.ranks
        assert ranks
        for rank in ranks:
            rank.send_signal(signal.SIGSTOP)
        return ranks

    def cancel(self) -> None:
        """`headway cancel` of the run, frozen or not. SLURM continues what it stops, so ranks may be gone at once."""
        ranks = self.ranks
        self.site.run("cancel", self.run)
        send_signal(signal.SIGCONT, ranks)

    def await_that(self, holds: Callable[[], Any], what: str) -> Any:
        """Wait until something holds; returns its value."""
        deadline = time.monotonic() + DEADLINE
        while not (value := holds()):
            assert time.monotonic() < deadline, f"no {what} in {DEADLINE:g} s:\n{self.log}\n{self.site.cluster.logs()}"
            time.sleep(POLL_SECONDS)
        return value

    def await_end(self, state: str = "COMPLETED", seconds: float = 2 * DEADLINE) -> Show:
        """Wait until SLURM says that the job is over, as `state`."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
        show = self.site.cluster.await_job(self.job, over, seconds)
        assert show["JobState"] == state, f"{show}\n{self.log}"
        return show

    @property
    def nodes(self) -> list[str]:
        """The machines that it has."""
        return self.site.cluster.client("scontrol", "show", "hostnames", self.show["NodeList"]).split()

    @property
    def ranks(self) -> list[psutil.Process]:
        """Its ranks, wherever they are."""
        return [rank for node in self.nodes for rank in self.site.ranks(node)]

    @property
    def show(self) -> Show:
        """What SLURM says of it."""
        return self.site.cluster.show("job", self.job)


def tokens_lost(submitted: Submitted) -> dict[int, int]:
    """Tokens that each attempt trained on beyond its last commit, by attempt."""
    history = submitted.site.place.history(submitted.run)
    lost = {}
    for attempt in history.attempts:
        trained = [e["tokens"] for e in submitted.named("step.done") if e["attempt"] == attempt.number]
        saved = attempt.commits[-1].tokens if attempt.commits else attempt.tokens_before
        lost[attempt.number] = max([*trained, saved]) - saved
    return lost
