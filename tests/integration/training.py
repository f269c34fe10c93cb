"""How the tests train for real: `headway train` as a process with ranks, watched by its log, signalled, killed."""

import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.verify import Finding, verify
from headway.data.build import build
from headway.objectstore import Store, open_store
from headway.recipe import load
from headway.runs import History, Run
from tests.integration.zygote import Command

DEADLINE = 120.0
"""Seconds that anything here may take before the test fails [s]: a bound for hangs, not a measure of speed."""


def prepare(folder: Path, name: str) -> Path:
    """Put the recipe `name` of these tests in `folder`, and build its data there; returns the recipe's path."""
    recipe = folder / f"{name}.yaml"
    text = (Path(__file__).parent / recipe.name).read_text(encoding="utf-8")
    document = yaml.safe_load(text.replace("TEXT", str(Path(json.__file__).parent)))
    document["data"]["path"] = str(folder / "data")
    recipe.write_text(yaml.safe_dump(document), encoding="utf-8")
    build(load(recipe))
    return recipe


def until(done: Callable[[], bool], what: str | Callable[[], str], seconds: float = DEADLINE) -> None:
    """Return once `done` says so; fail with `what` if it does not within so long [s]."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.05)


def send_signal(number: int, processes: Iterable[psutil.Process]) -> None:
    """Signal processes, as far as they are still there."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@dataclass
class Place:
    """A recipe, its data and a run store."""

    recipe: Path
    store: Path
    """Folder of the store, if it is one."""
    url: str = ""
    """Of the store, if it is no folder."""

    @property
    def objects(self) -> Store:
        """The store."""
        return open_store(self.url or str(self.store))

    def run(self, name: str) -> Run:
        """The run `name`."""
        return Run(self.objects, name)

    def history(self, name: str) -> History:
        """What the journal of `name` says."""
        return self.run(name).history()

    def fingerprint(self, name: str) -> str:
        """Fingerprint of the newest checkpoint of `name`."""
        return StoredCheckpoint(self.objects, self.history(name).commits[-1]).fingerprint()

    def findings(self, name: str) -> list[str]:
        """What `verify` finds."""
        return [finding.problem for finding in verify(self.run(name)) if isinstance(finding, Finding)]

    def start(
        self, name: str, *overrides: str, ranks: int = 1, options: Sequence[str] = (), cold: bool = False
    ) -> "Training":
        """Begin `headway train`: forked from the zygote, or `cold`, executed with all its imports."""
        words = ["train", str(self.recipe), *overrides, "--run", name, "--store", self.url or str(self.store)]
        words += ["--nproc", str(ranks), "--json", *options]
        return Training(_executed(words) if cold else Command(words))

    def start_machines(self, name: str, *overrides: Sequence[str], ranks: int = 1) -> list["Training"]:
        """Begin `headway train` as on several machines, each with its overrides; they find each other by the store."""
        all_of_them = ["--nodes", str(len(overrides)), "--launch", secrets.token_hex(8)]
        return [
            self.start(name, *own, ranks=ranks, options=[*all_of_them, "--node", str(node)])
            for node, own in enumerate(overrides)
        ]

    def train(
        self, name: str, *overrides: str, ranks: int = 1, options: Sequence[str] = (), cold: bool = False
    ) -> "Training":
        """Train to the end."""
        training = self.start(name, *overrides, ranks=ranks, options=options, cold=cold)
        training.wait()
        return training


def _executed(words: Sequence[str]) -> "subprocess.Popen[str]":
    """A `headway` command as a process of its own session."""
    command = [sys.executable, "-m", "headway.cli", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@dataclass
class Training:
    """A running `headway train`."""

    process: "Command | subprocess.Popen[str]"
    events: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    """Lines of standard error that are not events."""

    def __post_init__(self) -> None:
        self._news = threading.Condition()
        self._quiet = False
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self.members: set[psutil.Process] = set()

    def _listen(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._news:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.messages.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._quiet = True
            self._news.notify_all()

    def await_event(self, name: str, count: int = 1) -> bool:
        """Wait for the event `name`, for the `count`-th of them; False if the process went quiet before."""

        def come() -> bool:
            return [event["event"] for event in self.events].count(name) >= count

        with self._news:
            self._news.wait_for(lambda: come() or self._quiet, DEADLINE)
            return come()

    def await_end(self, seconds: float) -> bool:
        """Wait until the process has ended, at most `seconds`."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def family(self) -> list[psutil.Process]:
        """The launcher and every process below it."""
        try:
            launcher = psutil.Process(self.process.pid)
            return [launcher, *launcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def ranks(self) -> list[psutil.Process]:
        """The training processes: the launcher starts a fork server, and that starts them."""
        ranks = []
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                fork_server = process.parent()
                if fork_server and fork_server.ppid() == self.process.pid:
                    ranks.append(process)
        return sorted(ranks, key=lambda process: process.pid)

    def send(self, number: int, processes: Sequence[psutil.Process]) -> None:
        """Signal processes of this training, as far as they are still there."""
        self.members.update(self.family())
        send_signal(number, processes)

    def wait(self) -> int:
        """Wait until the launcher and every process it had are gone; returns its exit code."""
        self.members.update(self.family())
        self.process.wait(DEADLINE)
        _, alive = psutil.wait_procs(list(self.members), timeout=DEADLINE)
        assert not alive, f"left behind: {alive}"
        self._reader.join(DEADLINE)
        return int(self.process.wait(0))

    def outcome(self) -> dict[str, Any]:
        """What `--json` printed, after the end."""
        assert self.process.stdout
        document: dict[str, Any] = json.loads(self.process.stdout.read())
        return document

    def clean_up(self) -> None:
        """End whatever is left of it."""
        send_signal(signal.SIGKILL, {*self.members, *self.family()})
