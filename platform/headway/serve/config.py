"""What is served, and how: all that a replica is told."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

VARIABLE = "HEADWAY_ENDPOINT"
"""Environment: the endpoint that a process works for, as JSON; Serve calls what it calls without a word."""


class ServeConfig(BaseModel):
    """An OpenAI endpoint for one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    """A Hugging Face directory, verified."""
    name: str
    """What clients call the model."""
    version: str = ""
    """Of the registry, if it comes from there."""
    role: str = "stable"
    """stable or canary: what this one is to the others of its name."""
    device: str = "cpu"
    quantization: str = "none"
    trace: str | None = None
    """W3C `traceparent` of the run that made the model."""
    price: float = Field(default=0.0, ge=0)
    """What an hour of the device costs, in any currency."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    context_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt and answer together [tokens]; None: what the model was trained for."""
    streams: int = Field(default=64, ge=1)
    """Requests that are computed at a time."""
    queue: int = Field(default=64, ge=0)
    """Requests that may wait to be computed; more are refused."""
    cache_gib: int = Field(default=1, ge=1)
    """Memory for keys and values on a CPU [GiB]."""
    keys: Path | None = None
    """File of API keys and quotas; without one, whoever reaches the port may ask, as much as they like."""
    quiet: bool = False
    """Whether the log tells of what went wrong only."""
    body_bytes: int = Field(default=4 * 2**20, ge=1)
    """Longest body of a request [bytes]."""
    body_seconds: float = Field(default=30.0, gt=0)
    """Within which it must be here, all of it [s]."""
    fallback: str | None = None
    """URL of another service, as an OpenAI client has it, which answers while the engine cannot."""
    reader_seconds: float = Field(default=10.0, gt=0)
    """Within which a client must take a piece of its answer [s]."""
    choices: int = Field(default=128, ge=1)
    """Answers that one request may ask for: prompts times `n`."""
    seed: int = 0
    grace_seconds: float = Field(default=120.0, gt=0)
    """How long requests in flight may take once the service was asked to stop [s]."""

    @classmethod
    def here(cls) -> "ServeConfig":
        """That of this process."""
        return cls.model_validate_json(os.environ[VARIABLE])
