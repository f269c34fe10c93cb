"""One attempt at a run: from the claim in the journal to the word about how it ended. What the loop works with."""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import Self

from headway import recipe as recipes
from headway.checkpoint.commit import Lineage
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.retention import Retention
from headway.checkpoint.saver import Saver
from headway.data import Prefetcher
from headway.errors import DamageError, HeadwayError, StoreError
from headway.runs import Committed, Decided, Ended, Holder, keys
from headway.runs.ledger import LedgerRow
from headway.train.arithmetic import differences
from headway.train.cadence import Cadence
from headway.train.clock import Clock
from headway.train.evaluation import Evaluator
from headway.train.rank import Rank
from headway.train.reporter import Reporter
from headway.train.run_telemetry import RunTelemetry
from headway.train.stability import BatchVerdict, rollback_horizon
from headway.train.startup_timer import StartupTimer
from headway.train.step import Gradient, lanes_of
from headway.train.straggler import StragglerDetector
from headway.train.task import Task


class TrainingAttempt:
    """The rank's part in one attempt. Every method but `skips` is collective."""

    def __init__(
        self,
        rank: Rank,
        holder: Holder,
        clock: Clock,
        start: StartupTimer,
        *,
        task: Task,
        follows: int | None,
        instruments: RunTelemetry,
    ) -> None:
        """Claim the run, or after a roll-back claim it again.

        Raises:
            HeldError: somebody alive is training it.
            FencedError: somebody claimed it since the attempt that this one follows.
        """
        self.rank, self.clock, self.start, self.preemption = rank, clock, start, rank.preemption
        self.recipe, self.run, self.state, self.instruments = rank.recipe, rank.run, rank.state, instruments
        data = rank.dataset.digest
        self.saved = 0
        """Tokens of the last save that was begun, or restored."""
        self.number: int = rank.ranks.on_rank0(
            lambda: self.run.claim(holder, self.recipe, data, take_over=task.take_over, follows=follows).seq
        )
        self.history = self.run.history(upto=self.number)
        self.cadence = Cadence(self.recipe.checkpoint, self.history)
        self.report = Reporter(
            self.run,
            self.number,
            rank.ranks.rank,
            clock,
            holder=holder,
            budget=self.recipe.train.tokens,
            every=self.recipe.machine.heartbeat_seconds,
            quiet=task.quiet,
            instruments=instruments,
            trace=instruments.begin(self.run, self.history, clock),
        )
        self.batches = Prefetcher(
            rank.dataset,
            [
                lane % self.recipe.train.lanes
                for lane in lanes_of(rank.ranks.rank, rank.ranks.size, self.recipe.train.lanes)
            ],
            rank.transfer,
        )
        self.step = rank.step
        self.stragglers = StragglerDetector(rank.ranks.gather(socket.gethostname()))
        self.evaluation = Evaluator(self.recipe, rank.dataset, self.state, rank.transfer, rank.ranks.group)
        self.saver = Saver(
            self.run,
            Lineage(self.number, recipes.digest(self.recipe), rank.dataset.digest, rank.environment),
            rank.background,
            retention=Retention(self.recipe.checkpoint.keep, reach=rollback_horizon(self.recipe)),
            announce=self._committed,
        )

    def __enter__(self) -> Self:
        self.report.__enter__()
        self.report.event("attempt.claimed", ranks=self.rank.ranks.size)
        try:
            self._book(0)
            self.start.done("claim")
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.batches.close()
        self.saver.close()
        self.report.__exit__(kind, error, trace)

    def resume(self) -> int:
        """Become what the newest sound checkpoint holds; returns its tokens, 0 if there is none."""
        with self._starting("restore"):
            for commit in reversed(self.history.commits):
                if self._load(commit):
                    return commit.tokens
            if self.history.commits:
                self.report.warn("restore.nothing_sound", action="beginning again at 0 tokens")
            self.state.reset()
            return 0

    def asked_to_stop(self) -> int:
        """How urgently any rank was asked to stop."""
        return int(max(self.rank.ranks.gather(self.preemption.level)))

    def skips(self, position: int) -> bool:
        """Whether a decision says that the batch at `position` does not count."""
        decision = self.history.skipped(position)
        if decision:
            self.state.skipped.add((decision.skip_from, decision.skip_to))
        if not any(start <= position < end for start, end in self.state.skipped):
            return False
        self.report.tokens = position + self.recipe.train.batch_tokens
        self.report.event("batch.skipped", batch=position, reason=decision.reason if decision else "as decided before")
        return True

    def decide(self, verdict: BatchVerdict, position: int) -> str:
        """Record what is done about the batch at `position`; returns the action.

        Raises:
            HeadwayError: the recipe says to stop, or too many decisions were made.
        """
        policy, batch = self.recipe.train.stability, self.recipe.train.batch_tokens
        self.report.warn("batch.judged", batch=position, action=verdict.action, reason=verdict.reason)
        self._await_save()
        if verdict.action == "stop" or len(self.history.decisions) >= policy.limit:
            raise HeadwayError(
                f"the batch at {position:,} tokens: {verdict.reason}; after {len(self.history.decisions)} decisions "
                f"the run was stopped (train.stability). Look at the data there, or lower the learning rate"
            )
        back = verdict.action == "rollback"
        skip_from = max(0, position - batch * (policy.rollback_batches - 1)) if back else position
        seq = self.rank.ranks.on_rank0(
            lambda: (
                self.run.journal.append(
                    Decided,
                    self.number,
                    action=verdict.action,
                    reason=verdict.reason,
                    skip_from=skip_from,
                    skip_to=position + batch,
                    restored=skip_from if back else None,
                ).seq
            )
        )
        self.history = self.run.history(upto=seq)
        return verdict.action

    def evaluate(self, position: int) -> int:
        """Measure the held-out loss; returns how urgently some rank was asked to stop, which breaks it off."""
        with self._starting("evaluation"):
            loss, stop = self.evaluation.loss(self.preemption)
        if not stop:
            self.state.held_out, self.state.evaluated = loss, position
            self.report.event("evaluation.done", held_out=loss)
        return stop

    def wishes_to_save(self) -> bool:
        """Whether it pays off to save now; rank 0 decides that, and all learn it with the batch's losses."""
        return self.rank.ranks.first and self.cadence.wish(saving=self.saver.busy)

    def save(self, position: int) -> None:
        """Begin to save the state at `position`; it must not change before `await_copy`."""
        with self._stalled("drain" if self.clock.phase == "drain" else "checkpoint"):
            self._await_save()
            self.instruments.saving()
            self.cadence.begin()
            rows = self._rows(position)
            self.saver.save(position, self.state.tensors(), self.state.progress(), _lines(rows))
            self.saved = position
        self.report.event("checkpoint.staged")

    def await_copy(self) -> None:
        """Wait until the state that is being saved may change again."""
        with self._stalled("checkpoint"):
            self.saver.await_copy()

    def stepped(self, position: int, gradient: Gradient, rate: float, seconds: float) -> None:
        """Take note of a step, up to `position`, at the learning rate `rate`."""
        self.cadence.stepped(seconds, saving=self.saver.busy)
        self.report.step(position, gradient.loss, gradient.norm, rate, seconds)
        if self.stragglers.look(gradient.paces):
            self._say_who_is_slow()
        if stages := self.start.step():
            self.report.event("attempt.started", **stages)

    def end(self, outcome: str, reason: str) -> None:
        """Say in the journal how the attempt ended, and close its books."""
        self._await_save()
        position = self.report.tokens
        if position == self.saved:  # what came after the last save is lost
            self._book(position)
        self.rank.ranks.on_rank0(
            lambda: self.run.journal.append(Ended, self.number, outcome=outcome, reason=reason, tokens=position).seq
        )
        self.report.event("attempt.ended", outcome=outcome, reason=reason)

    @contextmanager
    def _starting(self, phase: str) -> Iterator[None]:
        """Spend the block in `phase`, which is a stage of the start as long as no step was made."""
        with self.clock.during(phase), self.instruments.during(phase) as span:
            yield
            span.set(tokens=self.report.tokens)
        self.start.done(phase)

    @contextmanager
    def _stalled(self, phase: str) -> Iterator[None]:
        """Book time in which training stands still for a save."""
        began = time.monotonic()
        with self.clock.during(phase):
            yield
        stalled = time.monotonic() - began
        self.cadence.stalled(stalled)
        self.instruments.stalled(stalled)

    def _await_save(self) -> None:
        """Wait until nothing is being saved; a save that failed is said before it is raised."""
        try:
            self.saver.wait()
        except StoreError as error:
            if self.rank.ranks.first:
                self.report.warn("checkpoint.failed", problem=str(error))
            raise

    def _say_who_is_slow(self) -> None:
        """Say which rank keeps the others waiting, or that none does any more. Every rank knows; the first one says."""
        slow = self.stragglers.slow
        if slow and self.rank.ranks.first:
            self.report.warn("rank.slow", **asdict(slow))
        elif slow is None:
            self.report.event("rank.recovered")

    def _committed(self, tokens: int, warning: str) -> None:
        """Say that a checkpoint is true."""
        self.report.event("checkpoint.committed", at=tokens)
        if warning:
            self.report.warn("checkpoint.untidy", at=tokens, problem=warning)

    def _load(self, commit: Committed) -> bool:
        """Load a checkpoint on all ranks, or on none; a damaged one is reported."""
        checkpoint = StoredCheckpoint(self.run.store, commit)
        try:
            for shard in checkpoint.manifest.shards if self.rank.ranks.first else ():
                checkpoint.check_frame(shard)
            self.state.load(checkpoint)
            problem = None
        except DamageError as error:
            problem = str(error)
        problems = [each for each in self.rank.ranks.gather(problem) if each]
        if problems:
            self.saver.retention.distrusted.add(commit.manifest)
            self.report.warn("checkpoint.damaged", at=commit.tokens, problem=problems[0])
            return False
        self.saver.parent = commit.manifest
        self.report.tokens = self.saved = commit.tokens
        self.report.event("checkpoint.restored", at=commit.tokens, manifest=commit.manifest)
        if changed := differences(checkpoint.manifest.environment, self.rank.environment):
            self.report.warn("environment.changed", changed=changed, effect="bits may differ from here on")
        return True

    def _book(self, position: int) -> None:
        """Write the ledger as of now."""
        data = _lines(self._rows(position)).encode()
        self.rank.ranks.on_rank0(lambda: self.run.store.put(keys.ledger(self.run.name, self.number), [data]))

    def _rows(self, position: int) -> list[LedgerRow]:
        row = self.clock.row(self.number, self.rank.ranks.rank, position)
        rows = [LedgerRow.model_validate(each) for each in self.rank.ranks.gather(row.model_dump())]
        self.report.tally.book(rows)
        return rows


def _lines(rows: Sequence[LedgerRow]) -> str:
    return "".join(json.dumps(row.model_dump()) + "\n" for row in rows)
