"""Submitting: what was asked for is kept in the run store, then one sbatch, by submitit, takes all of it.

A job runs `headway job`, which finds in the store what it is to train. No pickles, no state beside the store.
"""

import contextlib
import getpass
import io
import os
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError

from headway.errors import MissingObject, UsageError
from headway.launch import cluster, preflight
from headway.launch.resources import Resources
from headway.launch.slurm_cli import is_absent
from headway.launch.sweep import SweepMember
from headway.objectstore import Store
from headway.recipe import RecipeDocument
from headway.runs import keys, submissions
from headway.runs.submissions import Submission, SubmittedJob
from headway.telemetry import Trace, current_trace
from headway.telemetry.traces import VARIABLE

DEAF = "trap '' TERM USR1 USR2"
"""The batch script must outlive the signals that are for the ranks; SLURM sends them to everybody."""


class Batch(SlurmExecutor):
    """submitit's way to sbatch, for a file that is composed first, and kept: it may be submitted again."""

    def __init__(self, logs: Path, *, text: str = "", options: Sequence[str] = ()) -> None:
        super().__init__(folder=logs)
        self.text, self.options = text, options
        self.file: Path | None = None

    @classmethod
    def affinity(cls) -> int:
        """Submitit asks whether it is on a cluster; whoever only composes a file need not be."""
        return 2

    def compose(self, parameters: dict[str, Any], command: str, members: int | None) -> str:
        """The text of a batch file."""
        self.update_parameters(**parameters)
        if members:
            self.parameters["map_count"] = members
        return str(super()._make_submission_file_text(command, ""))

    def send(self) -> str:
        """Submit the text; returns the job's id.

        Raises:
            FailedJobError: sbatch refuses, with what it said.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises, too
                return str(self._submit_command("").job_id)
        finally:
            if self.file:
                self.file.unlink(missing_ok=True)  # a link to the file by the job's id, which stays

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        del command, uid  # composed before
        return self.text

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        self.file = submission_file_path
        return ["sbatch", *self.options, str(submission_file_path)]


def compose(
    store: Store,
    name: str,
    document: RecipeDocument,
    members: Sequence[SweepMember],
    asked: Resources,
    *,
    array: bool,
    logs: Path,
    trace: Trace | None = None,
) -> Submission:
    """What is asked for, whole, but nothing is done yet.

    All that becomes of it belongs to `trace`; default: to that of this process, or a new one.
    """
    python = os.environ.get("HEADWAY_PYTHON") or shlex.quote(sys.executable)
    command = f"exec {python} -m headway.cli {shlex.join(['job', '--submission', name, '--store', store.url])}"
    parent, count = str(trace or current_trace()), len(members) if array else None
    setup = [DEAF, f"export {VARIABLE}={parent}"]
    return Submission(
        name=name,
        cluster=None,
        user=getpass.getuser(),
        host=socket.gethostname(),
        folder=str(Path.cwd()),
        time=time.time(),
        recipe=document.text,
        members=[submissions.Member(run=each.run, overrides=each.overrides) for each in members],
        array=array,
        nodes_min=asked.nodes_min,
        nodes_max=asked.nodes_max,
        ranks=asked.ranks,
        trace=parent,
        store=store.url,
        sbatch=Batch(logs).compose(asked.parameters(name, logs, setup, count), command, count),
        logs=str(logs),
    )


def submit(store: Store, wanted: Submission, asked: Resources) -> Submission:
    """Keep it in the store, hand it to sbatch, and note the job's id.

    Raises:
        UsageError: the cluster cannot run it, or an earlier job of it waits or runs.
        ClusterError: SLURM is not there, or does not answer.
    """
    preflight.foresee(asked)
    earlier = submissions.find(store, wanted.name)
    _check_free(store, wanted, earlier)
    wanted = wanted.model_copy(update={"cluster": cluster.setting("ClusterName")})
    submissions.save(store, wanted)  # a job may begin before sbatch is back
    try:
        job = _send(wanted)
    except BaseException as error:
        if earlier:
            submissions.save(store, earlier)
        else:
            store.delete(keys.submission(wanted.name))
        if isinstance(error, FailedJobError):
            raise preflight.explain(str(error), asked) from error
        raise
    wanted = wanted.model_copy(update={"sent": [SubmittedJob(job=job, time=time.time())]})
    submissions.save(store, wanted)
    return wanted


def submit_again(store: Store, submission: Submission, indices: Sequence[int] | None = None) -> Submission:
    """Submit what was submitted before, all of it or only these members of an array.

    Raises:
        UsageError: sbatch refuses.
    """
    options = ["--chdir", submission.folder]
    if submission.array and indices is not None:
        options.append(f"--array={','.join(map(str, indices))}")
    try:
        job = _send(submission, options)
    except FailedJobError as error:
        raise UsageError(f"sbatch: {error}. Submit it anew with headway submit") from error
    sent = SubmittedJob(job=job, time=time.time(), members=None if indices is None else list(indices))
    submission = submission.model_copy(update={"sent": [*submission.sent, sent]})
    submissions.save(store, submission)
    return submission


def _send(submission: Submission, options: Sequence[str] = ()) -> str:
    try:
        return Batch(Path(submission.logs), text=submission.sbatch, options=options).send()
    except OSError as error:
        raise is_absent("sbatch", error) from error


def _check_free(store: Store, wanted: Submission, earlier: Submission | None) -> None:
    """See that no job of the same name, or of the same run, waits or runs.

    Raises:
        UsageError: one does, or the array's name is that of a run.
    """
    if wanted.array:
        with contextlib.suppress(MissingObject):
            store.size(keys.recipe(wanted.name))
            raise UsageError(f"there is a run {wanted.name} already; give the array another name with --name")
    elif found := submissions.of_run(store, wanted.name):
        earlier = found[0]
    ids = [sent.job for sent in earlier.sent] if earlier else []
    alive = [job for job in cluster.jobs(ids) if job.waits or job.runs] if ids else []
    if earlier and alive:
        first = alive[0]
        raise UsageError(
            f"{earlier.name} is submitted already: job {first.id} is {first.state.lower()}"
            + (f", and {len(alive) - 1} more" if len(alive) > 1 else "")
            + f". headway cancel {earlier.name} ends that; or submit under another name with --name"
        )
