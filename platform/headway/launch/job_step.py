"""A job step: srun runs `headway train` on each node of the job."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence

from headway.stop_signals import signals_blocked

QUEUE = "HEADWAY_QUEUE"
"""Environment variable: submit and start time of this incarnation of the job, for the ledger."""


class JobStep:
    """A running job step."""

    def __init__(self, nodes: Sequence[str], arguments: Sequence[str], recipe: str, queue_times: str | None) -> None:
        """Starts `headway train - ARGUMENTS` on `nodes`. Each process reads `recipe`, YAML, from standard input."""
        self.nodes = list(nodes)
        self.launch = secrets.token_hex(8)
        count = str(len(nodes))
        command = ["srun", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
        command += [f"--nodelist={','.join(nodes)}", "--overlap", "--kill-on-bad-exit=0", "--wait=0", "--no-kill"]
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # srun does not inherit it from the job
            command.append(f"--cpus-per-task={cpus}")
        command += [sys.executable, "-m", "headway.cli", "train", "-", *arguments]
        command += ["--nodes", count, "--launch", self.launch]
        environment = {key: value for key, value in os.environ.items() if key != QUEUE}
        with signals_blocked():
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                env=environment | ({QUEUE: queue_times} if queue_times else {}),
                text=True,
            )
        assert self._process.stdin
        with self._process.stdin as pipe:
            pipe.write(recipe)

    def wait(self, seconds: float) -> bool:
        """Waits for the step's end, at most `seconds`. Returns whether the step has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def request_stop(self) -> None:
        """Has srun forward SIGUSR1 to all processes of the step. SIGTERM would make srun kill them."""
        self._process.send_signal(signal.SIGUSR1)

    @property
    def exit_code(self) -> int:
        """The highest exit code of all nodes after the end; 1 if a signal ended srun."""
        code = self._process.returncode
        return code if 0 <= code < 128 else 1

    def kill(self) -> None:
        """Kills srun. SLURM ends the step's processes on unreachable nodes later."""
        self._process.kill()
        self._process.wait()
