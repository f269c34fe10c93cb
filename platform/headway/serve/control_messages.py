"""Messages between a service and its other processes. Each is one packet of JSON on the control channel.

The service sends `Configuration` when a process connects, and `Drain` when it was asked to stop. A process sends
`LogText` and `StageDone` at any time, and after `Drain` one `Finished`. The node sends `Deployed`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter
from pydantic_core import to_json

from headway.serve.config import ServeConfig

MAX_MESSAGE_BYTES = 2**17
"""Longest message [bytes]."""
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class Configuration:
    """What a replica needs to know to start."""

    config: ServeConfig
    terminal: bool
    """Whether the service's standard error is a terminal."""
    kind: Literal["configuration"] = "configuration"


@dataclass(frozen=True)
class Drain:
    """The service was asked to stop: refuse new requests, and complete those in flight."""

    kind: Literal["drain"] = "drain"


@dataclass(frozen=True)
class LogText:
    """A line of the log with its end, for the service's standard error."""

    text: str
    dropped: Count = 0
    """Lines that were dropped since the last line that was sent."""
    kind: Literal["log_text"] = "log_text"


@dataclass(frozen=True)
class StageDone:
    """A stage of the replica's start has ended."""

    stage: Annotated[str, Field(max_length=64)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Its duration [s]."""
    kind: Literal["stage_done"] = "stage_done"


@dataclass(frozen=True)
class Deployed:
    """Ray Serve has started the replica, or has failed to."""

    failure: str | None
    """Why the replica did not start; None: it responds."""
    kind: Literal["deployed"] = "deployed"


@dataclass(frozen=True)
class Finished:
    """All requests in flight are complete, and their responses are sent; the process can be killed."""

    kind: Literal["finished"] = "finished"


FromService: TypeAlias = Annotated[Configuration | Drain, Field(discriminator="kind")]
FromReplica: TypeAlias = Annotated[LogText | StageDone | Deployed | Finished, Field(discriminator="kind")]
_FROM_SERVICE: TypeAdapter[FromService] = TypeAdapter(FromService)
_FROM_REPLICA: TypeAdapter[FromReplica] = TypeAdapter(FromReplica)


def encode(message: FromService | FromReplica) -> bytes:
    """A message as a packet. One is made for each line of the log, and this is the cheapest way."""
    return to_json(vars(message))


def decode_from_service(packet: bytes) -> FromService:
    """Read a packet of the service.

    Raises:
        ValueError: it is no message of a service.
    """
    return _FROM_SERVICE.validate_json(packet)


def decode_from_replica(packet: bytes) -> FromReplica:
    """Read a packet of a replica.

    Raises:
        ValueError: it is no message of a replica, or it was cut off because it is too long.
    """
    return _FROM_REPLICA.validate_json(packet)
