"""Start times of processes on this host and on others."""

import os
import subprocess
import sys
import time

from headway.runs import Holder, process_start, this_process

TICK = 1 / os.sysconf("SC_CLK_TCK")


def test_a_process_start_is_known_to_a_tick() -> None:
    """Whatever the process does before it looks."""
    script = "from headway.runs import process_start, this_process; print(process_start(this_process('x')))"
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        after = time.time()
        output, _ = process.communicate()
    assert before - 2 * TICK <= float(output) <= after + TICK


def test_a_process_start_on_another_host_is_unknown() -> None:
    """Ticks count from that host's boot. A start that could not be read is unknown, too."""
    here = this_process("x")
    assert process_start(Holder(host="elsewhere", pid=here.pid, started=here.started, launch="x")) is None
    assert process_start(Holder(host=here.host, pid=here.pid, started=0, launch="x")) is None
