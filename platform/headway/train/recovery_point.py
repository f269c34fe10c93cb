"""The state that a save commits: that after the last trained batch, under the position of that batch.

Skipped batches leave the parameters alone. So while batches are skipped there is nothing new to save, however far the
position has moved, and a checkpoint never claims to be further than what was trained.
"""

from headway.checkpoint.manifest import Progress
from headway.train.compute.state import State


class RecoveryPoint:
    """Position and progress of the present parameters."""

    def __init__(self, state: State) -> None:
        self.tokens = 0
        """Position after the last trained batch, or of the restored checkpoint [tokens]."""
        self._state = state
        self._progress: Progress | None = None

    def move(self, tokens: int) -> None:
        """Move to `tokens`: the present state is that of this position."""
        self.tokens, self._progress = tokens, None

    def hold(self) -> None:
        """Hold the progress of this position, before a batch is skipped."""
        self._progress = self._progress or self._state.progress()

    def progress(self) -> Progress:
        """All of the state that is not a tensor, as it was at this position."""
        return self._progress or self._state.progress()
