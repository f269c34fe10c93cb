"""A process that ends with its parent, and a parent that keeps its descendants."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), flush=True)
time.sleep(60)
"""
CHILD = """
import os, sys, time
from headway.parent_death import end_with_parent
end_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(60)
"""
SECONDS = 60
"""A bound for hangs."""


def test_a_process_ends_with_its_parent() -> None:
    """Also when that is killed."""
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        assert is_over(child)


def test_the_forkserver_of_engines_ends_with_its_replica() -> None:
    """Even if it cannot notice by itself, since it is stopped, or loads vLLM."""
    code = """
import os, signal
from multiprocessing import forkserver, get_context
from headway.parent_death import PARENT_VARIABLE
os.environ[PARENT_VARIABLE] = str(os.getpid())
forkserver.set_forkserver_preload(["headway.serve.engine.forkserver_death"])
get_context("forkserver").Process(target=int).start()  # it has loaded the module
server = forkserver._forkserver._forkserver_pid
os.kill(server, signal.SIGSTOP)
print(server, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as replica:
        assert replica.stdout
        server = os.pidfd_open(int(replica.stdout.readline()))
        replica.kill()
        replica.wait()
        assert is_over(server, 10)


def is_over(process: int, seconds: float = SECONDS) -> bool:
    """Whether a process has ended, at the latest after so long."""
    try:
        return bool(select.select([process], [], [], seconds)[0])
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        os.close(process)


def test_a_process_whose_parent_has_ended_before_ends_at_once() -> None:
    """Its parent is another one by then."""
    done = subprocess.run([sys.executable, "-c", CHILD, "1"], capture_output=True, timeout=SECONDS, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("spares", [False, True])
def test_all_descendants_are_killed_even_orphans(spares: bool) -> None:  # noqa: FBT001
    """But those below children that were there before."""
    code = """
import os, subprocess, sys, time
from headway.parent_death import adopt_orphans
from headway.serve.process.process_tree import descendants, kill_descendants
adopt_orphans()
shell = ["sh", "-c", "sleep 60 & sleep 60 & echo; exec sleep 60"]
child = subprocess.Popen(shell, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
orphans = subprocess.Popen(["sh", "-c", "setsid sleep 60 & echo"], stdout=subprocess.PIPE)
orphans.stdout.readline()
orphans.wait()
spared = frozenset([child.pid] if sys.argv[1] == "True" else [])
before = len(descendants())
assert kill_descendants(spared)
print(before, len(descendants()), flush=True)
kill_descendants()
"""
    command = [sys.executable, "-c", code, str(spares)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.split() == ["4", "3" if spares else "0"]
