"""How long an attempt took to its first step, itemised: what a restart costs, and where to look when it costs more."""

import time
from collections.abc import Sequence


class StartupTimer:
    """Books the seconds from the beginning of a launch to the end of its first step to stages, one after the other."""

    def __init__(self, began: float, reached: Sequence[tuple[str, float]] = ()) -> None:
        """`began`: when the launch began. `reached`: stages that ended already, and when [all s since 1970]."""
        self.stages: dict[str, float] = {}
        """Seconds by stage, in the order in which they were reached; a stage that is reached again adds up."""
        self.over = False
        self._began = self._last = began
        for stage, moment in reached:
            self.done(stage, moment)

    def done(self, stage: str, moment: float | None = None) -> None:
        """Note that `stage` ends now, or ended at `moment` [s since 1970]; after the first step nothing is noted."""
        now = max(self._last, time.time() if moment is None else moment)
        if not self.over:
            self.stages[stage] = self.stages.get(stage, 0.0) + now - self._last
            self._last = now

    def step(self) -> dict[str, float] | None:
        """Note that a step was made; of the first one, the seconds of all stages and their `total`, for a log."""
        if self.over:
            return None
        self.done("first_step")
        self.over = True
        return {stage: round(seconds, 3) for stage, seconds in self.stages.items()} | {
            "total": round(self._last - self._began, 3)
        }
