"""The forkserver loads torch, ignores signals to the ranks, and ends with the block."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, multiprocessing, os, signal, sys
from multiprocessing import forkserver, resource_tracker
import psutil
from headway.train.host.forkserver import rank_forkserver

def loaded(pipe):
    pipe.send(["torch" in sys.modules, os.getppid()])

def main():
    with rank_forkserver("json"):
        children = psutil.Process().children()
        server = forkserver._forkserver._forkserver_pid
        try:
            signal.raise_signal(signal.SIGUSR1)
        except SystemExit as leaving:
            code = leaving.code
        reader, writer = multiprocessing.Pipe()
        rank = multiprocessing.get_context("forkserver").Process(target=loaded, args=(writer,))
        rank.start()
        torch, parent = reader.recv()
        rank.join()
        for child in children:
            if child.pid != server:
                child.send_signal(signal.SIGUSR1)
        alive = [child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children]
    _, left = psutil.wait_procs([child for child in children if child.pid == server], timeout=30)
    print(json.dumps({
        "children": len(children), "alive": alive, "torch": torch, "from_server": parent == server,
        "left": len(left), "code": code, "launcher": "torch" in sys.modules,
    }))

if __name__ == "__main__":
    main()
"""


def test_ranks_come_from_a_process_that_has_loaded_torch_and_does_not_outlive_the_block(
    tmp_path: Path,
) -> None:
    """The launcher does not load torch; a signal ends the block in order, and the resource tracker survives it."""
    script = tmp_path / "script.py"  # the ranks import it
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "children": 2,
        "alive": [True, True],
        "torch": True,
        "from_server": True,
        "left": 0,
        "code": 75,
        "launcher": False,
    }
