"""The task of a launch: all that the launcher hands to each of its ranks."""

from dataclasses import dataclass

from headway.runs import Holder
from headway.telemetry.metrics_server import MetricsConfig


@dataclass(frozen=True)
class Task:
    """One launch of one run."""

    recipe: str
    """YAML."""
    run: str
    store: str
    """URL."""
    launcher: Holder
    """Process that starts the ranks."""
    launch_time: float
    """When the launch began [s since 1970]; a rank's ledger starts here."""
    grace: float
    """Time that a rank has to save and exit after a stop request [s]."""
    tokens: int
    """Position of the run at the launch."""
    take_over: bool
    quiet: bool
    exposure: MetricsConfig | None = None
    """Where rank 0 serves metrics, if requested."""
