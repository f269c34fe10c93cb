"""Submissions to SLURM: one object per name, for a single run or an array of runs.

A job reads from it everything that it needs except the data, so nodes share nothing else.
"""

from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from headway import strict_json
from headway.errors import DamageError, MissingObject, UsageError
from headway.objectstore.protocol import Store, read_document, too_long
from headway.runs import keys
from headway.runs.field_types import Count, JobId, Line, Moment

SUBMISSION_BYTES = 16 << 20
"""Longest submission [bytes]: an array of more than 50,000 runs."""
RunName = Annotated[str, Field(pattern=rf"^{keys.NAME.pattern}\z")]


class _StoredModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a job may run an older Headway than its submission


class Member(_StoredModel):
    """One run. Element i of an array trains member i."""

    run: RunName
    overrides: list[str]
    """`key=value` overrides of the recipe."""


class SubmittedJob(_StoredModel):
    """A job or array that sbatch accepted."""

    job: JobId
    """SLURM job id."""
    time: Moment
    """Time of the submission [s since 1970]."""
    members: list[Count] | None = None
    """Indices of the members it runs; None: all."""
    cancelled: bool = False
    """Whether `headway cancel` cancelled all of it."""


class Submission(_StoredModel):
    """A request for one or more runs, and its SLURM jobs."""

    name: RunName
    cluster: Line | None
    """SLURM's name of the cluster. Job ids are unique within a cluster only."""
    user: Line
    host: Line
    """Host of the submission."""
    folder: str
    """Working directory of the submission and of its jobs."""
    time: Moment
    """Time of the first submission [s since 1970]."""
    recipe: str
    """The recipe's YAML text, before overrides."""
    members: list[Member]
    array: bool
    """Whether the members are elements of a job array; else the only member is the job itself."""
    nodes_min: Count
    nodes_max: Count
    ranks: Count
    """Ranks per node."""
    trace: Line
    """W3C `traceparent` of the submission and its jobs."""
    store: str
    """URL of the run store."""
    sbatch: str
    """Text of the sbatch script."""
    logs: str
    """Folder of the jobs' output files."""
    jobs: list[SubmittedJob] = Field(
        default=[], validation_alias=AliasChoices("jobs", "sent"), serialization_alias="sent"
    )
    """Jobs, oldest first; empty until sbatch has responded."""

    @property
    def job(self) -> str | None:
        """Id of the newest job or array."""
        return self.jobs[-1].job if self.jobs else None

    def job_of(self, index: int) -> str | None:
        """Id of the newest job that runs a member, in the form that SLURM's commands accept."""
        for submitted in reversed(self.jobs):
            if submitted.members is None or index in submitted.members:
                return f"{submitted.job}_{index}" if self.array else submitted.job
        return None

    def index_of(self, run: str) -> int | None:
        """Index of the member that is this run; None if there is none."""
        return next((index for index, member in enumerate(self.members) if member.run == run), None)


def save(store: Store, submission: Submission) -> None:
    """Write a submission, replacing an earlier one of the same name."""
    data = submission.model_dump_json(indent=1, by_alias=True).encode()
    store.put(keys.submission(submission.name), [data])


def find(store: Store, name: str) -> Submission | None:
    """The submission `name`; None if there is none.

    Raises:
        DamageError: it is unreadable.
    """
    try:
        data = read_document(store, keys.submission(name), SUBMISSION_BYTES)
    except MissingObject:
        return None
    return _parse(data, keys.submission(name))


def get(store: Store, name: str) -> Submission:
    """The submission `name`.

    Raises:
        UsageError: it does not exist; names the submissions that do.
    """
    if submission := find(store, name):
        return submission
    names = ", ".join(each.name for each in all_submissions(store)) or "none"
    raise UsageError(f"no submission {name} in {store.url}; it has: {names}")


def all_submissions(store: Store) -> list[Submission]:
    """All readable submissions, by name."""
    return scan(store)[0]


def scan(store: Store) -> tuple[list[Submission], list[str]]:
    """All readable submissions, by name, and a finding for each object among them that is none."""
    readable: list[Submission] = []
    stored_keys = list(store.list(keys.submissions()))
    findings = [f"{key}: is no submission" for key in stored_keys if not keys.is_ours(key)]
    stored_keys = [key for key in stored_keys if keys.is_ours(key)]
    for key, data in zip(stored_keys, store.get_all(stored_keys, SUBMISSION_BYTES + 1), strict=True):
        try:
            readable += [] if data is None else [_parse(data, key)]
        except DamageError as error:
            findings.append(str(error))
    return readable, findings


def of_run(store: Store, run: str) -> tuple[Submission, int] | None:
    """The submission of a run and the run's index in it; None if there is none.

    The submission's name is the run's, or a dotted prefix of it.
    """
    parts = run.split(".")
    for length in range(len(parts), 0, -1):
        submission = find(store, ".".join(parts[:length]))
        if submission and (index := submission.index_of(run)) is not None:
            return submission, index
    return None


def _parse(data: bytes, key: str) -> Submission:
    if len(data) > SUBMISSION_BYTES:
        raise too_long(key, SUBMISSION_BYTES)
    try:
        submission = Submission.model_validate(strict_json.parse(data))
    except ValueError as error:
        raise DamageError(f"{key}: not readable as a submission; delete it, and submit again") from error
    if keys.submission(submission.name) != key:
        raise DamageError(f"{key}: says that it is submission {submission.name}; delete it, and submit again")
    return submission
