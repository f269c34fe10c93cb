"""How the tests train for real: `headway train` as a process with ranks, watched by its log, signalled, killed."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from headway import data
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.verify import Finding, verify
from headway.objectstore import Store, open_store
from headway.recipe import load
from headway.runs import History, Run

DEADLINE = 120.0
"""Seconds that anything here may take before the test fails [s]: a bound for hangs, not a measure of speed."""


def prepare(folder: Path, name: str) -> Path:
    """Put the recipe `name` of these tests in `folder`, and build its data there; returns the recipe's path."""
    recipe = folder / f"{name}.yaml"
    text = (Path(__file__).parent / recipe.name).read_text(encoding="utf-8")
    document = yaml.safe_load(text.replace("TEXT", str(Path(json.__file__).parent)))
    document["data"]["path"] = str(folder / "data")
    recipe.write_text(yaml.safe_dump(document), encoding="utf-8")
    data.build(load(recipe))
    return recipe


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
        return [found.what for found in verify(self.run(name)) if isinstance(found, Finding)]

    def start(self, name: str, *overrides: str, ranks: int = 1, options: Sequence[str] = ()) -> "Training":
        """Begin `headway train`."""
        command = [sys.executable, "-m", "headway.cli", "train", str(self.recipe), *overrides]
        command += ["--run", name, "--store", self.url or str(self.store), "--nproc", str(ranks), "--json", *options]
        return Training(command)

    def start_machines(self, name: str, *overrides: Sequence[str], ranks: int = 1) -> list["Training"]:
        """Begin `headway train` as on several machines, each with its overrides; they find each other by the store."""
        all_of_them = ["--nodes", str(len(overrides)), "--launch", secrets.token_hex(8)]
        return [
            self.start(name, *own, ranks=ranks, options=[*all_of_them, "--node", str(node)])
            for node, own in enumerate(overrides)
        ]

    def train(self, name: str, *overrides: str, ranks: int = 1, options: Sequence[str] = ()) -> "Training":
        """Train to the end."""
        training = self.start(name, *overrides, ranks=ranks, options=options)
        training.wait()
        return training


@dataclass
class Training:
    """A running `headway train`."""

    command: list[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Lines of standard error that are not events."""

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
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
                    self.said.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._quiet = True
            self._news.notify_all()

    def await_event(self, name: str, count: int = 1) -> bool:
        """Wait until `name` was said `count` times; False if the process went quiet before."""

        def there() -> bool:
            return [event["event"] for event in self.events].count(name) >= count

        with self._news:
            self._news.wait_for(lambda: there() or self._quiet, DEADLINE)
            return there()

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
        """The training processes: those forked from the fork server."""
        found = []
        for process in self.family():
            try:
                parent = process.parent()
                if parent and parent.pid != self.process.pid and "forkserver" in " ".join(parent.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda process: process.pid)

    def send(self, number: int, processes: Sequence[psutil.Process]) -> None:
        """Signal processes, as far as they are still there."""
        self.members.update(self.family())
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def wait(self) -> int:
        """Wait until the launcher and every process it had are gone; returns its exit code."""
        self.members.update(self.family())
        self.process.wait(DEADLINE)
        _, alive = psutil.wait_procs(list(self.members), timeout=DEADLINE)
        assert not alive, f"left behind: {alive}"
        self._reader.join(DEADLINE)
        return self.process.returncode

    def outcome(self) -> dict[str, Any]:
        """What `--json` printed, after the end."""
        assert self.process.stdout
        document: dict[str, Any] = json.loads(self.process.stdout.read())
        return document

    def clean_up(self) -> None:
        """End whatever is left of it."""
        for process in {*self.members, *self.family()}:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
