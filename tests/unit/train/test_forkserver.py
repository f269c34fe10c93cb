"""The process that ranks are forked from: there early, unmoved by signals that are meant for ranks, gone at the end."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, multiprocessing, os, signal, sys
from multiprocessing import forkserver, resource_tracker
import psutil
from headway.train.forkserver import nursery

def loaded(pipe):
    pipe.send(["torch" in sys.modules, os.getppid()])

def main():
    with nursery("json"):
        children = psutil.Process().children()
        keeper = forkserver._forkserver._forkserver_pid
        heard = signal.getsignal(signal.SIGUSR1)
        here, there = multiprocessing.Pipe()
        rank = multiprocessing.get_context("forkserver").Process(target=loaded, args=(there,))
        rank.start()
        torch, parent = here.recv()
        rank.join()
        for child in children:
            if child.pid != keeper:
                child.send_signal(signal.SIGUSR1)
        alive = [child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children]
    _, left = psutil.wait_procs([child for child in children if child.pid == keeper], timeout=30)
    print(json.dumps({
        "children": len(children), "alive": alive, "torch": torch, "from_keeper": parent == keeper,
        "left": len(left), "usr1": heard == signal.SIG_DFL, "here": "torch" in sys.modules,
    }))

if __name__ == "__main__":
    main()
"""


def test_ranks_come_from_a_process_that_has_loaded_torch_and_does_not_outlive_the_block(
    tmp_path: Path,
) -> None:
    """The launcher has not loaded it; the resource tracker survives the signal that asks ranks to stop."""
    script = tmp_path / "script.py"  # the ranks import what they run
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "children": 2,
        "alive": [True, True],
        "torch": True,
        "from_keeper": True,
        "left": 0,
        "usr1": True,
        "here": False,
    }
