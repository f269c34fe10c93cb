"""Parses the lines of `scontrol -o show job|node|partition`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from headway.launch.slurm_cli import run_slurm

PENDING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
"""Job states of jobs in the queue."""
RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"}
"""Job states of jobs that hold nodes."""
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
    """Job ID as SLURM's commands take it; `A_a` for an array element."""
    raw_id: str
    """SLURM_JOB_ID; that of the whole array for an element that has not started."""
    name: str
    state: str
    reason: str
    """Why the job waits, or how it ended; may be empty."""
    restarts: int
    """Number of requeues."""
    node_list: str
    """Node list in SLURM's compact form; empty without nodes."""
    batch_host: str | None
    submit_time: float | None
    """Time of the submission or the last requeue [s since 1970]."""
    start_time: float | None
    """Actual or expected start [s since 1970]."""
    end_time: float | None
    """Actual end, or the time limit [s since 1970]."""
    preempt_time: float | None
    """Time of the preemption notice; the job may still be in its grace time [s since 1970]."""
    exit_code: int
    exit_signal: int
    fields: Mapping[str, str] = field(repr=False)
    """All fields of `scontrol -o show job`."""

    @property
    def array_id(self) -> str | None:
        """ID of the array that the job is an element of."""
        return self.id.partition("_")[0] if "_" in self.id else None

    @property
    def array_index(self) -> int | None:
        """Index of the job in its array."""
        return int(self.id.partition("_")[2]) if "_" in self.id else None

    @property
    def nodes(self) -> list[str]:
        """Names of the job's nodes."""
        return expand_node_list(self.node_list)

    @property
    def is_pending(self) -> bool:
        """Whether the job is in the queue."""
        return self.state in PENDING

    @property
    def is_running(self) -> bool:
        """Whether the job holds nodes, including while it starts or ends."""
        return self.state in RUNNING

    @property
    def is_active(self) -> bool:
        """Whether the job is in the queue or holds nodes."""
        return self.is_pending or self.is_running


@dataclass(frozen=True)
class SlurmNode:
    """A node, as SLURM describes it."""

    name: str
    state: str
    cpus: int
    memory_mib: int
    """Memory [MiB]."""
    gpus: int
    partitions: list[str]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parses one line of `scontrol -o show node`."""
        fields = _fields(line)
        return cls(
            name=fields["NodeName"],
            state=fields["State"],
            cpus=int(fields["CPUTot"]),
            memory_mib=int(fields["RealMemory"]),
            gpus=sum(int(count) for count in GPUS.findall(fields.get("Gres", ""))),
            partitions=fields.get("Partitions", "").split(","),
        )


@dataclass(frozen=True)
class Partition:
    """A partition, as SLURM describes it."""

    name: str
    default: bool
    hidden: bool
    """Hidden from ordinary listings; some users may still submit to it."""
    state: str
    nodes: int
    cpus: int
    """CPUs of all nodes together."""
    max_nodes: int | None
    """Largest number of nodes per job; None without a limit."""
    max_seconds: float | None
    """Longest time limit of a job [s]; None without a limit."""

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parses one line of `scontrol -o show partition`."""
        fields = _fields(line)
        return cls(
            name=fields["PartitionName"],
            default=fields["Default"] == "YES",
            hidden=fields.get("Hidden") == "YES",
            state=fields["State"],
            nodes=int(fields["TotalNodes"]),
            cpus=int(fields["TotalCPUs"]),
            max_nodes=None if fields["MaxNodes"] == "UNLIMITED" else int(fields["MaxNodes"]),
            max_seconds=parse_duration(fields["MaxTime"]),
        )


def parse_jobs(line: str) -> list[SlurmJob]:
    """Parses one line of `scontrol -o show job`. The pending elements of an array share one line."""
    fields = _fields(line)
    code, _, number = fields.get("ExitCode", "0:0").partition(":")
    array, raw_id = fields.get("ArrayJobId"), fields["JobId"]
    ids = [f"{array}_{index}" for index in array_indices(fields["ArrayTaskId"])] if array else [raw_id]
    return [
        SlurmJob(
            id=each,
            raw_id=raw_id,
            name=fields.get("JobName", ""),
            state=fields["JobState"],
            reason=_value(fields, "Reason") or "",
            restarts=int(fields.get("Restarts", "0")),
            node_list=_value(fields, "NodeList") or "",
            batch_host=_value(fields, "BatchHost"),
            submit_time=_time(fields, "SubmitTime"),
            start_time=_time(fields, "StartTime"),
            end_time=_time(fields, "EndTime"),
            preempt_time=_time(fields, "PreemptTime"),
            exit_code=int(code),
            exit_signal=int(number or 0),
            fields=fields,
        )
        for each in ids
    ]


def expand_node_list(node_list: str) -> list[str]:
    """The node names in a compact list such as `node[1-3],login`."""
    if "[" not in node_list:
        return [name for name in node_list.split(",") if name]
    return run_slurm("scontrol", "show", "hostnames", node_list).split()


def array_indices(text: str) -> Iterator[int]:
    """The indices in an ArrayTaskId such as `5-999%4` or `1,3-9:2`."""
    for part in text.partition("%")[0].split(","):
        span, _, step = part.partition(":")
        first, _, last = span.partition("-")
        yield from range(int(first), int(last or first) + 1, int(step or 1))


def parse_duration(text: str) -> float | None:
    """Parses a time limit: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS. Returns seconds, None if unlimited.

    Raises:
        ValueError: the text is not a time limit.
    """
    if text.upper() in {"UNLIMITED", "INFINITE"}:
        return None
    match = DURATION.match(text)
    if match is None:
        raise ValueError(f"{text} is not a time limit")
    part = {name: float(value or 0) for name, value in match.groupdict().items()}
    days = 86_400 * part["days"] + 3600 * part["of_day"] + 60 * part["m"] + part["s"]
    return days + 3600 * part["hours"] + 60 * (part["minutes"] + part["only"]) + part["seconds"]


def _fields(line: str) -> dict[str, str]:
    """Splits `Key=value Key=value ...`. A job name may contain anything, so `Key=` inside of it is not a key."""
    named = NAMED.match(line)
    if named:
        return {**_fields(named["before"]), "JobName": named["name"], **_fields(f"UserId={named['after']}")}
    pieces = FIELD.split(line)
    fields: dict[str, str] = {}
    for key, value in zip(pieces[1::2], pieces[2::2], strict=True):
        fields.setdefault(key, value.strip())
    return fields


def _value(fields: Mapping[str, str], key: str) -> str | None:
    """A field's value; None for SLURM's placeholders."""
    value = fields.get(key)
    return None if value in {None, "", "None", "(null)", "N/A", "Unknown"} else value


def _time(fields: Mapping[str, str], key: str) -> float | None:
    """A field's time [s since 1970]."""
    value = _value(fields, key)
    return datetime.fromisoformat(value).replace(tzinfo=UTC).timestamp() if value else None
