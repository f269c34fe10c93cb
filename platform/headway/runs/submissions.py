"""What was asked of SLURM: one object for each name, a single run or an array of them.

A job finds in it all that it needs but the data, so nothing else must be shared between the machines.
"""

from pydantic import BaseModel, ConfigDict, ValidationError

from headway.errors import DamageError, MissingObject, UsageError
from headway.objectstore.protocol import Store
from headway.runs import keys


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a job may be older than whoever submitted it


class Member(_Plain):
    """One run: element i of the array trains member i."""

    run: str
    overrides: list[str]
    """`key=value`, on top of the recipe."""


class SubmittedJob(_Plain):
    """One job or array that sbatch took."""

    job: str
    """Its id."""
    time: float
    """When [s since 1970]."""
    members: list[int] | None = None
    """Which members it is for; None: all."""
    cancelled: bool = False
    """Whether all of it was cancelled by `headway cancel`."""


class Submission(_Plain):
    """What was asked for, and which jobs came of it."""

    name: str
    cluster: str | None
    """SLURM's name of the cluster, without which a job id means nothing."""
    user: str
    host: str
    """Where it was submitted."""
    folder: str
    """Where it was submitted from: the jobs' working directory."""
    time: float
    """When [s since 1970]."""
    recipe: str
    """YAML, as it was written, before overrides."""
    members: list[Member]
    array: bool
    """Whether the members are elements of an array; else there is one, and the job is its own."""
    nodes_min: int
    nodes_max: int
    ranks: int
    """On each node."""
    trace: str
    """W3C `traceparent` that all of it belongs to."""
    store: str
    """URL."""
    sbatch: str
    """What sbatch was given."""
    logs: str
    """Folder that jobs write what they say to."""
    sent: list[SubmittedJob] = []
    """Oldest first; empty until sbatch has answered."""

    @property
    def job(self) -> str | None:
        """Id of the last job or array."""
        return self.sent[-1].job if self.sent else None

    def job_of(self, index: int) -> str | None:
        """Id of the last job that was for a member, as SLURM's commands take it."""
        for sent in reversed(self.sent):
            if sent.members is None or index in sent.members:
                return f"{sent.job}_{index}" if self.array else sent.job
        return None

    def index(self, run: str) -> int | None:
        """Which member a run is."""
        return next((index for index, member in enumerate(self.members) if member.run == run), None)


def save(store: Store, submission: Submission) -> None:
    """Write a submission, over any earlier one of its name."""
    store.put(keys.submission(submission.name), [submission.model_dump_json(indent=1).encode()])


def find(store: Store, name: str) -> Submission | None:
    """The submission `name`, if there is one.

    Raises:
        DamageError: there is something unreadable.
    """
    try:
        data = store.get(keys.submission(name))
    except MissingObject:
        return None
    return _read(data, keys.submission(name))


def get(store: Store, name: str) -> Submission:
    """The submission `name`, which must exist.

    Raises:
        UsageError: it does not; names those that there are.
    """
    if found := find(store, name):
        return found
    there = ", ".join(each.name for each in all_submissions(store)) or "none"
    raise UsageError(f"no submission {name} in {store.url}; there: {there}")


def all_submissions(store: Store) -> list[Submission]:
    """All submissions, by name."""
    names = [key for key in store.list(keys.submissions()) if key.endswith(".json")]
    return [_read(data, key) for key, data in zip(names, store.get_all(names), strict=True) if data is not None]


def of_run(store: Store, run: str) -> tuple[Submission, int] | None:
    """The submission that a run is a member of, and which; its name is the run's, or what the run's begins with."""
    parts = run.split(".")
    for length in range(len(parts), 0, -1):
        found = find(store, ".".join(parts[:length]))
        if found and (index := found.index(run)) is not None:
            return found, index
    return None


def _read(data: bytes, key: str) -> Submission:
    try:
        return Submission.model_validate_json(data)
    except ValidationError as error:
        raise DamageError(f"{key}: not readable as a submission; delete it, and submit again") from error
