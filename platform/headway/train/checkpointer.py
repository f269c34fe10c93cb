"""The checkpoints of one attempt: when to save, which state, and under which position.

What is saved is the state after the last trained batch, under the position of that batch, and only if it is finite on
every rank. So no checkpoint holds a NaN, and a run that diverges keeps the checkpoints from before.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from headway import recipe as recipes
from headway.checkpoint.commit import Lineage
from headway.checkpoint.retention import Retention
from headway.checkpoint.saver import Saver
from headway.errors import HeadwayError, StoreError
from headway.events import training_events as events
from headway.runs import Committed
from headway.train.claim import Claim
from headway.train.clock import Clock
from headway.train.rank import Rank
from headway.train.recovery_point import RecoveryPoint
from headway.train.save_schedule import SaveSchedule
from headway.train.sinks.reporter import Reporter
from headway.train.stability import remedy, rollback_horizon
from headway.train.time_ledger import TimeLedger


class Checkpointer:
    """The part of this rank in the checkpoints of one attempt. Every method except `close` is collective."""

    def __init__(self, rank: Rank, claim: Claim, clock: Clock, reporter: Reporter, ledger: TimeLedger) -> None:
        self.clock, self.reporter, self.ledger = clock, reporter, ledger
        self.run, self.state, self.collectives = rank.run, rank.state, rank.collectives
        self.recovery_point = RecoveryPoint(self.state)
        self.schedule = SaveSchedule(rank.recipe.checkpoint, claim.history)
        self.saver = Saver(
            self.run,
            Lineage(claim.number, recipes.digest(rank.recipe), rank.dataset.digest, rank.environment),
            rank.save_collectives,
            retention=Retention(rank.recipe.checkpoint.keep, horizon=rollback_horizon(rank.recipe)),
            on_commit=self._on_commit,
        )
        self.last_save = 0
        """Position of the last save that was started, or of the restored one [tokens]."""
        self._refused: int | None = None
        """Position of the last state, if it was not finite [tokens]."""

    def close(self) -> None:
        """Let the background threads end."""
        self.saver.close()

    def on_restore(self, commit: Committed) -> None:
        """Record that the state is that of a checkpoint."""
        self.saver.parent, self.last_save = commit.manifest, commit.tokens
        self.recovery_point.move(commit.tokens)

    def on_step(self, position: int, seconds: float) -> None:
        """Record a step that ended at `position` and took `seconds`."""
        self.recovery_point.move(position)
        self.schedule.on_step(seconds, saving=self.saver.busy)

    def should_save(self) -> bool:
        """Whether this rank wants to save: True only on rank 0, whose wish the others get with the batch's losses."""
        return self.collectives.is_rank0 and self.schedule.is_due(saving=self.saver.busy)

    def save(self) -> None:
        """Start to save the state after the last trained batch; it must not change before `await_copy`.

        Saves nothing if that state is saved already, or is not finite.

        Raises:
            HeadwayError: neither this state nor the one that was to be saved before is finite.
        """
        tokens, refused_before = self.recovery_point.tokens, self._refused
        if tokens in {self.last_save, refused_before} or self._save(tokens):
            return
        if refused_before is not None:
            raise HeadwayError(self._divergence())

    def save_last(self, position: int) -> None:
        """Start to save the state at the end of the run, after its last evaluation.

        If batches were skipped at the end, the held-out loss shows whether the state is sound.

        Raises:
            HeadwayError: it is not, or the state is not finite.
        """
        held_out, trained = self.state.held_out, self.recovery_point.tokens
        if position > trained and not (held_out is not None and math.isfinite(held_out)):
            self.save()
            self.await_save()
            raise HeadwayError(
                f"the run diverged: the held-out loss at {position:,} tokens is {held_out}, and no batch was trained "
                f"after {trained:,} tokens. {remedy(self.run.history())}"
            )
        self.recovery_point.move(position)
        if not self._save(position):
            raise HeadwayError(self._divergence())

    def await_copy(self) -> None:
        """Wait until the state in the present save is copied, and may change again."""
        with self._stall("checkpoint"):
            self.saver.await_copy()

    def await_save(self) -> None:
        """Wait for the save in progress; report its failure before raising it."""
        try:
            self.saver.wait()
        except StoreError as error:
            if self.collectives.is_rank0:
                self.reporter.emit(events.CheckpointFailed(problem=str(error)))
            raise

    def _save(self, tokens: int) -> bool:
        """Start to save the state as that of `tokens`; returns False if it is not finite on every rank."""
        with self._stall("drain" if self.clock.phase == "drain" else "checkpoint"):
            self.await_save()
            names = self.collectives.all_gather(self.state.nonfinite())
            problem = next((f"{name} on rank {rank} is not finite" for rank, name in enumerate(names) if name), None)
            if problem is None:
                self.reporter.emit(events.SaveStarted())
                self.schedule.on_save()
                ledger = self.ledger.lines(tokens)
                self.saver.save(tokens, self.state.tensors(), self.recovery_point.progress(), ledger)
                self.last_save, self._refused = tokens, None
        if problem is None:
            self.reporter.emit(events.CheckpointStaged())
            return True
        self._refused = tokens
        if self.collectives.is_rank0:
            self.reporter.emit(events.CheckpointRefused(at=tokens, problem=problem))
        return False

    def _divergence(self) -> str:
        """The error of a run whose state is not finite, though its losses are."""
        return (
            f"the run diverged: its state at {self._refused:,} tokens is not finite, and nothing after "
            f"{self.last_save:,} tokens was saved. {remedy(self.run.history())}"
        )

    @contextmanager
    def _stall(self, phase: str) -> Iterator[None]:
        """Spend the block in `phase`, and count it as time in which training stands still for a save."""
        start = time.monotonic()
        with self.clock.during(phase):
            yield
        seconds = time.monotonic() - start
        self.schedule.on_stall(seconds)
        self.reporter.emit(events.StallEnded(seconds=seconds))

    def _on_commit(self, tokens: int, warning: str) -> None:
        """Report that a checkpoint is committed."""
        self.reporter.emit(events.CheckpointCommitted(at=tokens))
        if warning:
            self.reporter.emit(events.CheckpointUntidy(at=tokens, problem=warning))
