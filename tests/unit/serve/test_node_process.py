"""The service's hold on its node: a script plays the node, and processes named as Ray's play Ray."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from headway.serve.process import node_process
from headway.serve.process.node_process import ESSENTIAL, NodeProcess
from headway.serve.process.process_tree import children, descendants

SCRIPT = """#!/bin/sh
cd "$TMPDIR"
[ "$2" = headway.serve.process ] && [ "$3" = {service} ] || exit 3
trap "" TERM INT HUP
./raylet 60 & ./gcs_server 60 & ./log_monitor 60 &
touch started
wait
"""
SECONDS = 60
"""A bound for hangs."""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeProcess]:
    """A node that has started all of its processes; another child of this process was there before."""
    for name in (*ESSENTIAL, "log_monitor"):
        shutil.copy(shutil.which("sleep") or "", tmp_path / name)
    script = tmp_path / "python"
    script.write_text(SCRIPT.format(service=os.getpid()))
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    monkeypatch.setattr("sys.stderr", sys.__stderr__)
    monkeypatch.setattr(node_process, "adopt_orphans", lambda: None)  # this process lives on
    with subprocess.Popen(["sleep", "60"]) as other:
        node = NodeProcess(tmp_path, tmp_path / "control")
        deadline = time.monotonic() + SECONDS
        while len(node._essential) < len(ESSENTIAL):  # noqa: SLF001 - it finds them by itself
            assert node.failure() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield node
        node.kill()
        assert other.poll() is None
        assert other.pid in descendants()
        other.kill()
        with suppress(ProcessLookupError):
            os.killpg(node._process.pid, signal.SIGKILL)  # noqa: SLF001 - orphans of a node that was killed


def pid(node: NodeProcess, name: str) -> int:
    """A process of Ray's."""
    [process] = [
        each
        for each in children()[node._process.pid]  # noqa: SLF001 - the node's process
        if Path(f"/proc/{each}/comm").read_text().strip() == name
    ]
    return process


@pytest.mark.parametrize("name", ESSENTIAL)
def test_the_end_of_a_process_without_which_ray_is_nothing_is_noticed(node: NodeProcess, name: str) -> None:
    """Its parent may not have noticed: it is a zombie then. Others may come and go."""
    for each, failure in (("log_monitor", None), (name, f"Ray's {name}")):
        process = pid(node, each)
        os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + SECONDS
        while node_process._name(process):  # noqa: SLF001
            assert time.monotonic() < deadline
        assert node.failure() == failure


def test_the_end_of_a_node_is_noticed(node: NodeProcess) -> None:
    """With its code."""
    node._process.kill()  # noqa: SLF001
    node._process.wait(SECONDS)  # noqa: SLF001
    assert node.failure() == "Ray's node (code -9)"


def test_a_node_is_killed_with_all_its_processes(node: NodeProcess) -> None:
    """Whatever signals they ignore; and it has a process group of its own."""
    processes = children()[node._process.pid]  # noqa: SLF001
    assert os.getpgid(node._process.pid) == node._process.pid != os.getpgrp()  # noqa: SLF001
    assert len(processes) == 3
    node.kill()
    assert not [each for each in processes if node_process._name(each)]  # noqa: SLF001
