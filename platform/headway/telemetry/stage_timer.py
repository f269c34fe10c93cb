"""Durations of consecutive stages, for example those of a start."""

import time


class StageTimer:
    """Measures stages by wall clock. A stage lasts from the end of the stage before it to its own end."""

    def __init__(self, start: float | None = None) -> None:
        """`start`: when the first stage begins [s since 1970]; default: now."""
        self.start = time.time() if start is None else start
        self.seconds: dict[str, float] = {}
        """Duration of each stage, in the order of their first ends. A stage that ends twice adds up."""
        self._last_end = self.start

    @property
    def total(self) -> float:
        """Duration of all stages together [s]."""
        return self._last_end - self.start

    def done(self, stage: str, moment: float | None = None) -> None:
        """End `stage` at `moment` [s since 1970]; default: now. A clock that is set back shortens no other stage."""
        end = max(self._last_end, time.time() if moment is None else moment)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + end - self._last_end
        self._last_end = end
