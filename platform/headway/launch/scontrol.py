"""What SLURM says of jobs, machines and partitions: the lines of `scontrol -o show ...`, taken apart."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from headway.launch.slurm_cli import run_slurm

WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"}
DURATION = re.compile(
    r"(?:(?P<days>\d+)-(?P<of_day>\d+)(?::(?P<m>\d+))?(?::(?P<s>\d+))?"
    r"|(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)|(?P<only>\d+))$"
)
NAMED = re.compile(r"^(?P<before>.*?) ?JobName=(?P<name>.*) UserId=(?P<after>\S+\(\d+\) .*)$")
GPUS = re.compile(r"gpu(?::[^:,()]+)?:(\d+)")
FIELD = re.compile(r"(?:^| )([A-Z][A-Za-z_/:]*)=")


@dataclass(frozen=True)
class SlurmJob:
    """One job, or one element of an array."""

    id: str
    """As commands take it: an array's element is `A_a`. (Its raw id may be that of the whole array.)"""
    raw: str
    """SLURM_JOB_ID; of an element that has not begun, the array's."""
    name: str
    state: str
    reason: str
    """Why it waits, or how it ended; empty if there is nothing to say."""
    restarts: int
    """How often it was requeued."""
    node_list: str
    """In SLURM's short form; empty while it has none."""
    batch_host: str | None
    submitted: float | None
    """When it was submitted, or requeued last [s since 1970]."""
    started: float | None
    """When it began, or is expected to [s since 1970]."""
    ends: float | None
    """When it ended, or will at the latest [s since 1970]."""
    preempted: float | None
    """When it was told that it is preempted, while it may still finish its grace time [s since 1970]."""
    exit_code: int
    exit_signal: int
    fields: Mapping[str, str] = field(repr=False)
    """All that `scontrol -o show job` says."""

    @property
    def array(self) -> str | None:
        """Id of the array that it is an element of."""
        return self.id.partition("_")[0] if "_" in self.id else None

    @property
    def index(self) -> int | None:
        """Its place in its array."""
        return int(self.id.partition("_")[2]) if "_" in self.id else None

    @property
    def nodes(self) -> list[str]:
        """Names of the machines that it has."""
        return hosts(self.node_list)

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        """Whether it has machines, be it that it is just leaving them."""
        return self.state in RUNNING


@dataclass(frozen=True)
class SlurmNode:
    """One machine."""

    name: str
    state: str
    cpus: int
    memory: int
    """MiB."""
    gpus: int
    partitions: list[str]

    @classmethod
    def parse(cls, line: str) -> Self:
        """The machine of one line of `scontrol -o show node`."""
        told = _fields(line)
        return cls(
            name=told["NodeName"],
            state=told["State"],
            cpus=int(told["CPUTot"]),
            memory=int(told["RealMemory"]),
            gpus=sum(int(count) for count in GPUS.findall(told.get("Gres", ""))),
            partitions=told.get("Partitions", "").split(","),
        )


@dataclass(frozen=True)
class Partition:
    """One partition."""

    name: str
    default: bool
    hidden: bool
    """Not for everybody's eyes, though some may use it."""
    state: str
    nodes: int
    cpus: int
    """Of all nodes together."""
    max_nodes: int | None
    """Of one job; None if there is no such limit."""
    max_seconds: float | None
    """Of one job [s]; None if there is no such limit."""

    @classmethod
    def parse(cls, line: str) -> Self:
        """The partition of one line of `scontrol -o show partition`."""
        told = _fields(line)
        return cls(
            name=told["PartitionName"],
            default=told["Default"] == "YES",
            hidden=told.get("Hidden") == "YES",
            state=told["State"],
            nodes=int(told["TotalNodes"]),
            cpus=int(told["TotalCPUs"]),
            max_nodes=None if told["MaxNodes"] == "UNLIMITED" else int(told["MaxNodes"]),
            max_seconds=duration(told["MaxTime"]),
        )


def jobs_of(line: str) -> list[SlurmJob]:
    """The jobs of one line of `scontrol -o show job`: elements of an array that wait share one."""
    told = _fields(line)
    code, _, number = told.get("ExitCode", "0:0").partition(":")
    array, raw = told.get("ArrayJobId"), told["JobId"]
    ids = [f"{array}_{index}" for index in indices(told["ArrayTaskId"])] if array else [raw]
    return [
        SlurmJob(
            id=each,
            raw=raw,
            name=told.get("JobName", ""),
            state=told["JobState"],
            reason=_known(told, "Reason") or "",
            restarts=int(told.get("Restarts", "0")),
            node_list=_known(told, "NodeList") or "",
            batch_host=_known(told, "BatchHost"),
            submitted=_moment(told, "SubmitTime"),
            started=_moment(told, "StartTime"),
            ends=_moment(told, "EndTime"),
            preempted=_moment(told, "PreemptTime"),
            exit_code=int(code),
            exit_signal=int(number or 0),
            fields=told,
        )
        for each in ids
    ]


def hosts(node_list: str) -> list[str]:
    """The names in a node list such as `node[1-3],login`."""
    if "[" not in node_list:
        return [name for name in node_list.split(",") if name]
    return run_slurm("scontrol", "show", "hostnames", node_list).split()


def indices(text: str) -> Iterator[int]:
    """The indices in an array's `5-999%4` or `1,3-9:2`."""
    for part in text.partition("%")[0].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def duration(text: str) -> float | None:
    """Seconds of a time as SLURM writes it: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS; None if it is without end.

    Raises:
        ValueError: it is no such time.
    """
    if text.upper() in {"UNLIMITED", "INFINITE"}:
        return None
    found = DURATION.match(text)
    if found is None:
        raise ValueError(f"{text} is no time")
    part = {name: float(value or 0) for name, value in found.groupdict().items()}
    days = 86_400 * part["days"] + 3600 * part["of_day"] + 60 * part["m"] + part["s"]
    return days + 3600 * part["hours"] + 60 * (part["minutes"] + part["only"]) + part["seconds"]


def _fields(line: str) -> dict[str, str]:
    """`Key=value Key=value ...` taken apart. A job's name may be anything, so what looks like a key in it is none."""
    named = NAMED.match(line)
    if named:
        return {**_fields(named["before"]), "JobName": named["name"], **_fields(f"UserId={named['after']}")}
    pieces = FIELD.split(line)
    found: dict[str, str] = {}
    for key, value in zip(pieces[1::2], pieces[2::2], strict=True):
        found.setdefault(key, value.strip())
    return found


def _known(told: Mapping[str, str], key: str) -> str | None:
    value = told.get(key)
    return None if value in {None, "", "None", "(null)", "N/A", "Unknown"} else value


def _moment(told: Mapping[str, str], key: str) -> float | None:
    value = _known(told, key)
    return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp() if value else None
