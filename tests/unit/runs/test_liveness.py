"""Who is there, and since when."""

import os
import subprocess
import sys
import time

from headway.runs import Holder, process_start, this_process

TICK = 1 / os.sysconf("SC_CLK_TCK")


def test_a_process_was_born_when_it_was_started() -> None:
    """To a clock tick, whatever it did before it looked."""
    script = "from headway.store import born, this_process; print(born(this_process('x')))"
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        after = time.time()
        said, _ = process.communicate()
    assert before - 2 * TICK <= float(said) <= after + TICK


def test_nobody_knows_when_a_process_elsewhere_was_born() -> None:
    """Ticks since another machine's start are no time here, and neither is a start that could not be read."""
    here = this_process("x")
    assert process_start(Holder(host="elsewhere", pid=here.pid, started=here.started, launch="x")) is None
    assert process_start(Holder(host=here.host, pid=here.pid, started=0, launch="x")) is None
