"""Runs SLURM's command-line programs, except sbatch, which submitit runs."""

import os
import re
import subprocess

from headway.errors import ClusterError
from headway.stop_signals import signals_blocked

TIMEOUT_SECONDS = 30.0
"""Time limit of a SLURM program [s]. The programs retry by themselves while slurmctld restarts."""
FIXED_ENVIRONMENT = {
    "TZ": "UTC0",
    "SLURM_TIME_FORMAT": "standard",
    "SLURM_BITSTR_LEN": "0",  # scontrol(1): otherwise a long list of array indices may be cut
}
"""Environment variables that make the output independent of the user's settings."""


def run_slurm(*words: str) -> str:
    """Runs a SLURM program and returns its standard output.

    A signal that SLURM sends to all processes of a job does not end the program.

    Raises:
        ClusterError: the program is missing, fails, or does not end in time.
    """
    try:
        with signals_blocked():
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | FIXED_ENVIRONMENT,
                start_new_session=True,
            )
    except OSError as error:
        raise program_missing(words[0], error) from error
    with process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ClusterError(
                f"slurmctld did not answer {words[0]} within {TIMEOUT_SECONDS:.0f} s; "
                f"`scontrol ping` shows whether it is up"
            ) from None
    if process.returncode:
        summary = _summary(errors) or f"exit code {process.returncode}"
        raise ClusterError(f"{' '.join(words[:4])}: {summary}")
    return output


def program_missing(program: str, error: OSError) -> ClusterError:
    """The error to raise if a SLURM program cannot be started."""
    return ClusterError(
        f"{program} cannot be run ({error.strerror}): this machine has no SLURM. Use a login node of the cluster, "
        f"or put SLURM's programs on PATH; headway train needs no SLURM"
    )


def _summary(errors: str) -> str:
    """The error output of a SLURM program in one line."""
    lines = [re.sub(r"^\w+: (error|fatal): ", "", line).strip() for line in errors.splitlines()]
    summary = "; ".join(dict.fromkeys(line for line in lines if line))
    if "Unable to contact slurm controller" in summary or "configuration source" in summary:
        summary += "; `scontrol ping` shows whether slurmctld is up; ask the cluster's administrator"
    return summary
