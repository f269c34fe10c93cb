"""Submits runs: stores the submission in the run store, then hands one batch file to sbatch through submitit.

The job runs `headway job`, which reads the submission from the store. No pickles, and no state outside the store.
"""

import contextlib
import getpass
import io
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, JobPaths

from headway.errors import MissingObject, UsageError
from headway.launch import cluster, preflight
from headway.launch.resources import Resources
from headway.launch.slurm_cli import program_missing
from headway.launch.sweep import SweepMember
from headway.objectstore import Store
from headway.recipe import RecipeDocument
from headway.runs import Run, keys, submissions, this_process
from headway.runs.rollback import roll_back
from headway.runs.submissions import Submission, SubmittedJob
from headway.telemetry import Spans, Trace, current_trace, environment_trace
from headway.telemetry.traces import TRACE_VARIABLE

IGNORE_SIGNALS = "trap '' TERM USR1 USR2"
"""Line of the batch script that keeps its shell alive: SLURM sends the signals for the ranks to all processes."""


class Batch(SlurmExecutor):
    """Submits a stored batch file with submitit, so that the same file can be submitted again."""

    def __init__(self, logs: Path, *, text: str = "", options: Sequence[str] = ()) -> None:
        super().__init__(folder=logs)
        self.text, self.options = text, options
        self.file: Path | None = None

    @classmethod
    def affinity(cls) -> int:
        """The check for a cluster in submitit. Always passes, because composing a batch file needs none."""
        return 2

    def compose(self, parameters: dict[str, Any], command: str, members: int | None) -> str:
        """Returns the text of a batch file that runs `command`; as an array if there are `members`."""
        self.update_parameters(**parameters)
        if members:
            self.parameters["map_count"] = members
        return str(super()._make_submission_file_text(command, ""))

    def send(self) -> str:
        """Submits the batch file and returns the job's ID.

        Raises:
            FailedJobError: sbatch rejects the file; holds sbatch's message.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit also prints the error
                return str(self._submit_command("").job_id)
        finally:
            if self.file:
                self.file.unlink(missing_ok=True)  # the file stays under the job's ID

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        del command  # the text is complete
        self.file = JobPaths.get_first_id_independent_folder(self.folder) / f".submission_file_{uid}.sh"
        return self.text

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["sbatch", *self.options, str(submission_file_path)]


@dataclass(frozen=True)
class SubmissionRequest:
    """A recipe, its runs and their resources, before they are submitted."""

    store: Store
    name: str
    document: RecipeDocument
    members: Sequence[SweepMember]
    resources: Resources
    array: bool
    logs: Path
    """Folder for the jobs' output."""

    def compose(self, trace: Trace | None = None) -> Submission:
        """Composes the submission without storing or submitting it.

        All its jobs belong to `trace`; default: this process's trace, or a new one.
        """
        python = os.environ.get("HEADWAY_PYTHON") or shlex.quote(sys.executable)
        words = ["job", "--submission", self.name, "--store", self.store.url]
        command = f"exec {python} -m headway.cli {shlex.join(words)}"
        parent, count = str(trace or current_trace()), len(self.members) if self.array else None
        setup = [IGNORE_SIGNALS, f"export {TRACE_VARIABLE}={parent}"]
        return Submission(
            name=self.name,
            cluster=None,
            user=getpass.getuser(),
            host=socket.gethostname(),
            folder=str(Path.cwd()),
            time=time.time(),
            recipe=self.document.text,
            members=[submissions.Member(run=each.run, overrides=each.overrides) for each in self.members],
            array=self.array,
            nodes_min=self.resources.nodes_min,
            nodes_max=self.resources.nodes_max,
            ranks=self.resources.ranks,
            trace=parent,
            store=self.store.url,
            sbatch=Batch(self.logs).compose(
                self.resources.parameters(self.name, self.logs, setup, count), command, count
            ),
            logs=str(self.logs),
        )

    def submit(self, from_tokens: int | None = None) -> Submission:
        """Composes and submits the runs. All spans of their jobs descend from the span of this call.

        With `from_tokens`, the only run goes back to its checkpoint there, once: a requeue does not repeat it.

        Raises:
            UsageError: the cluster cannot run the jobs, an earlier job of the same name waits or runs, or the run has
                no checkpoint at `from_tokens`.
            ClusterError: SLURM is missing or does not answer.
        """
        with (
            Spans("headway-submit", trace=environment_trace()) as spans,
            spans.span("launch.submit", submission=self.name, runs=[each.run for each in self.members]) as span,
        ):
            submission = submit(self.store, self.compose(span.trace), self.resources, from_tokens)
            span.set(job=submission.job)
        return submission


def submit(store: Store, submission: Submission, resources: Resources, from_tokens: int | None = None) -> Submission:
    """Stores the submission, submits it, and stores the job's ID. With `from_tokens`, its run goes back there before.

    Raises:
        UsageError: the cluster cannot run it, or an earlier job of the same name waits or runs.
        ClusterError: SLURM is missing or does not answer.
    """
    preflight.check_resources(resources)
    earlier = submissions.find(store, submission.name)
    _check_free(store, submission, earlier)
    if from_tokens is not None:
        holder = this_process(secrets.token_hex(8))
        roll_back(Run.open(store, submission.members[0].run), from_tokens, holder)
    submission = submission.model_copy(update={"cluster": cluster.setting("ClusterName")})
    submissions.save(store, submission)  # the job may start before sbatch returns
    try:
        job = _send(submission)
    except BaseException as error:
        if earlier:
            submissions.save(store, earlier)
        else:
            store.delete(keys.submission(submission.name))
        if isinstance(error, FailedJobError):
            raise preflight.explain_rejection(str(error), resources) from error
        raise
    submission = submission.model_copy(update={"jobs": [SubmittedJob(job=job, time=time.time())]})
    submissions.save(store, submission)
    return submission


def submit_again(store: Store, submission: Submission, indices: Sequence[int] | None = None) -> Submission:
    """Submits the stored batch file again; of an array, only the members `indices` if they are given.

    Raises:
        UsageError: sbatch rejects it.
    """
    options = ["--chdir", submission.folder]
    if submission.array and indices is not None:
        options.append(f"--array={','.join(map(str, indices))}")
    try:
        job = _send(submission, options)
    except FailedJobError as error:
        raise UsageError(f"sbatch: {error}. Submit the recipe again with headway submit") from error
    submitted = SubmittedJob(job=job, time=time.time(), members=None if indices is None else list(indices))
    submission = submission.model_copy(update={"jobs": [*submission.jobs, submitted]})
    submissions.save(store, submission)
    return submission


def _send(submission: Submission, options: Sequence[str] = ()) -> str:
    """Hands the batch file to sbatch and returns the job's ID."""
    try:
        return Batch(Path(submission.logs), text=submission.sbatch, options=options).send()
    except OSError as error:
        raise program_missing("sbatch", error) from error


def _check_free(store: Store, submission: Submission, earlier: Submission | None) -> None:
    """Checks that no job with the name, or of the run, waits or runs.

    Raises:
        UsageError: one does, or the array has the name of a run.
    """
    if submission.array:
        with contextlib.suppress(MissingObject):
            store.size(keys.recipe(submission.name))
            raise UsageError(f"there is a run {submission.name} already; give the array another name with --name")
    elif member := submissions.of_run(store, submission.name):
        earlier = member[0]
    ids = [submitted.job for submitted in earlier.jobs] if earlier else []
    active = [job for job in cluster.jobs(ids) if job.is_active] if ids else []
    if earlier and active:
        first = active[0]
        raise UsageError(
            f"{earlier.name} is submitted already: job {first.id} is {first.state.lower()}"
            + (f", and {len(active) - 1} more" if len(active) > 1 else "")
            + f". Cancel it with headway cancel {earlier.name}, or submit under another name with --name"
        )
