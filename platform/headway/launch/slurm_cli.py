"""Running a program of SLURM, but for sbatch, which submitit runs: the answer, or what went wrong."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from headway.errors import ClusterError

ANSWER_SECONDS = 30.0
"""Within which a program of SLURM must answer [s]: it asks again by itself while slurmctld restarts."""
SAME_WORDS = {
    "TZ": "UTC0",
    "SLURM_TIME_FORMAT": "standard",
    "SLURM_BITSTR_LEN": "0",  # scontrol(1): else a long list of array indices may be cut
}
"""Environment by which answers do not depend on who asks."""


def run_slurm(*words: str) -> str:
    """What a program of SLURM prints. No signal that this process gets ends it, be it sent to all of a job."""
    try:
        with shielded():
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | SAME_WORDS,
                start_new_session=True,
            )
    except OSError as error:
        raise is_absent(words[0], error) from error
    with process:
        try:
            out, said = process.communicate(timeout=ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ClusterError(
                f"slurmctld did not answer {words[0]} within {ANSWER_SECONDS:.0f} s; "
                f"`scontrol ping` says whether it is up"
            ) from None
    if process.returncode:
        raise ClusterError(f"{' '.join(words[:4])}: {_gist(said) or f'left with code {process.returncode}'}")
    return out


def is_absent(program: str, error: OSError) -> ClusterError:
    """What to say where a program of SLURM cannot be started."""
    return ClusterError(
        f"{program} cannot be run ({error.strerror}): this machine has no SLURM. Do this on a login node of the "
        f"cluster, or put SLURM's programs on PATH; headway train needs no SLURM"
    )


def _gist(said: str) -> str:
    """What a program of SLURM complained of, in one line."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line).strip() for line in said.splitlines()]
    gist = "; ".join(dict.fromkeys(line for line in lines if line))
    if "Unable to contact slurm controller" in gist or "configuration source" in gist:
        gist += "; `scontrol ping` says whether slurmctld is up; ask whoever runs the cluster"
    return gist


@contextmanager
def shielded() -> Iterator[None]:
    """What is started meanwhile does not hear the signals that stop a job: SLURM sends them to every process of it."""
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)
