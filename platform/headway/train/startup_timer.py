"""Startup time of an attempt by stage: what a restart costs, and which stage to look at when it costs more."""

from collections.abc import Sequence

from headway.events.training_events import AttemptStarted
from headway.telemetry.stage_timer import StageTimer


class StartupTimer:
    """Measures the stages from the start of a launch to the end of its first step."""

    def __init__(self, began: float, reached: Sequence[tuple[str, float]] = ()) -> None:
        """`began`: start of the launch. `reached`: stages that have already ended, and when [all s since 1970]."""
        self.over = False
        """Whether the first step is done; later stages do not count."""
        self._timer = StageTimer(began)
        for stage, moment in reached:
            self.done(stage, moment)

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage, in the order in which they ended first."""
        return self._timer.seconds

    def done(self, stage: str, moment: float | None = None) -> None:
        """End `stage` at `moment` [s since 1970], by default now. Does nothing after the first step."""
        if not self.over:
            self._timer.done(stage, moment)

    def step(self) -> AttemptStarted | None:
        """Record a step. The first call returns the event that the attempt has started; later calls, None."""
        if self.over:
            return None
        self.done("first_step")
        self.over = True
        stages = {stage: round(seconds, 3) for stage, seconds in self.stages.items()}
        return AttemptStarted(stages=stages, total=round(self._timer.total, 3))
