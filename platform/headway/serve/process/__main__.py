"""Node: `python -m headway.serve.process SERVICE FOLDER` runs Ray for the process SERVICE, with its files in FOLDER.

It reports over the control channel, and waits to be killed.
"""

import sys
import threading
import time
from pathlib import Path

from headway.output_stream import protect_work
from headway.parent_death import end_process, end_with_parent
from headway.serve.control_client import ControlClient
from headway.serve.control_messages import Deployed, Finished, StageDone
from headway.serve.process.ray_node import RayNode

MAX_FAILURE_CHARACTERS = 10_000
"""Longest message about a replica that did not start; of a longer one, the end is reported [characters]."""


def main() -> None:
    """Start Ray and the replica, and report how that went."""
    end_with_parent(int(sys.argv[1]))
    protect_work()
    start = time.monotonic()
    control = ControlClient.from_environment()
    control.follow(on_drain=lambda: None, in_flight=lambda: 0, on_lost=end_process)
    control.send(Finished())  # no request passes this process, so nothing waits for it
    node = RayNode(control.configuration.config)
    failure = None
    try:
        node.start(Path(sys.argv[2]))
        control.send(StageDone("ray", round(time.monotonic() - start, 3)))
        node.deploy()
    except Exception as error:  # any error: the service reports it
        failure = (str(error) or repr(error))[-MAX_FAILURE_CHARACTERS:]
    control.send(Deployed(failure))
    threading.Event().wait()


main()
