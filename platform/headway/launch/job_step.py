"""One step of a job: `headway train` on each of its machines, started by srun."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Sequence

from headway.launch.slurm_cli import shielded

QUEUE = "HEADWAY_QUEUE"
"""Environment: when SLURM queued and started this incarnation of the job, for the ledger."""


class JobStep:
    """A running step."""

    def __init__(self, machines: Sequence[str], arguments: Sequence[str], recipe: str, queue: str | None) -> None:
        """Start `headway train - ARGUMENTS` on `machines`; `recipe` is YAML, and comes to each by standard input."""
        self.machines = list(machines)
        self.launch = secrets.token_hex(8)
        count = str(len(machines))
        command = ["srun", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
        command += [f"--nodelist={','.join(machines)}", "--overlap", "--kill-on-bad-exit=0", "--wait=0", "--no-kill"]
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):  # srun does not take it over from the job by itself
            command.append(f"--cpus-per-task={cpus}")
        command += [sys.executable, "-m", "headway.cli", "train", "-", *arguments]
        command += ["--nodes", count, "--launch", self.launch]
        environment = {key: value for key, value in os.environ.items() if key != QUEUE}
        with shielded():
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, env=environment | ({QUEUE: queue} if queue else {}), text=True
            )
        assert self._process.stdin
        with self._process.stdin as pipe:
            pipe.write(recipe)

    def ended(self, seconds: float) -> bool:
        """Wait for the end, at most so long; whether it has come."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ask_to_stop(self) -> None:
        """Have srun pass a signal on to every process of the step; at SIGTERM srun itself would kill them all."""
        self._process.send_signal(signal.SIGUSR1)

    @property
    def exit_code(self) -> int:
        """The highest of all machines', after the end; 1 if a signal ended it."""
        code = self._process.returncode
        return code if 0 <= code < 128 else 1

    def kill(self) -> None:
        """End what is left of the step here; on a machine that does not answer SLURM does that later."""
        self._process.kill()
        self._process.wait()
