"""Configuration of a service."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class ServeConfig(BaseModel):
    """One model and how it is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    """Hugging Face directory of the model, already verified."""
    name: str
    """Model name that clients use."""
    version: str = ""
    """Version in the registry; empty for a model from elsewhere."""
    role: str = "stable"
    """Role label on metrics: stable or canary."""
    device: str = "cpu"
    """Device label on metrics: cpu or cuda."""
    quantization: str = "none"
    """Quantization label on metrics."""
    trace: str | None = None
    """W3C `traceparent` of the run that trained the model."""
    price: float = Field(default=0.0, ge=0)
    """Price of the device per hour, in any currency."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen at."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt and response together [tokens]; None: the model's own limit."""
    streams: int = Field(default=64, ge=1)
    """Requests that the engine computes at a time."""
    queue: int = Field(default=64, ge=0)
    """Requests that may wait for the engine; the service refuses more."""
    cache_gib: int = Field(default=1, ge=1)
    """Size of the KV cache on a CPU [GiB]."""
    key_file: Path | None = None
    """File of API keys and quotas; None: no key is needed, and no quota applies."""
    quiet: bool = False
    """Whether the log holds warnings and errors only."""
    max_body_bytes: int = Field(default=4 * 2**20, ge=1)
    """Longest request body [bytes]."""
    body_timeout_seconds: float = Field(default=30.0, gt=0)
    """How long a request body may take to arrive [s]."""
    max_head_bytes: int = Field(default=64 * 1024, ge=1)
    """Longest head of a request: its URL and header fields [bytes]."""
    max_head_fields: int = Field(default=256, ge=1)
    """Most header fields of a request."""
    head_timeout_seconds: float = Field(default=30.0, gt=0)
    """How long the head of a request may take to arrive [s]."""
    max_open_heads: int = Field(default=1024, ge=1)
    """Most requests whose heads are incomplete at a time; beyond it, the oldest is given up."""
    connections_per_address: int = Field(default=0, ge=0)
    """Most connections of one client address; 0: no limit, as behind a router, whose clients share its address."""
    fallback: str | None = None
    """Base URL (`.../v1`) of another service, which responds while the engine cannot."""
    write_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long a client may take to read a piece of its response [s]."""
    max_choices: int = Field(default=128, ge=1)
    """Most choices of one request: prompts times `n`."""
    seed: int = 0
    """Seed of the engine's sampling."""
    grace_seconds: float = Field(default=120.0, gt=0)
    """How long requests in flight may take after the service is asked to stop [s]."""
