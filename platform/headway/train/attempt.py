"""One attempt at a run, from its claim in the journal to its recorded end. The interface of the training loop."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from headway.checkpoint.reader import StoredCheckpoint
from headway.data import Prefetcher
from headway.errors import DamageError, HeadwayError
from headway.events import training_events as events
from headway.runs import Committed, Decided, Ended
from headway.train.checkpointer import Checkpointer
from headway.train.claim import Claim
from headway.train.clock import Clock
from headway.train.compute.arithmetic import differences
from headway.train.compute.step import Gradient, lanes_of
from headway.train.evaluation import Evaluator
from headway.train.rank import Rank
from headway.train.sinks.reporter import Reporter
from headway.train.sinks.run_telemetry import RunTelemetry
from headway.train.stability import BatchVerdict, remedy
from headway.train.startup_timer import StartupTimer
from headway.train.straggler import StepTiming, StragglerDetector
from headway.train.time_ledger import TimeLedger


class TrainingAttempt:
    """The part of this rank in one attempt. Every method except `should_skip` is collective."""

    def __init__(
        self,
        rank: Rank,
        claim: Claim,
        clock: Clock,
        startup: StartupTimer,
        telemetry: RunTelemetry,
        *,
        quiet: bool,
    ) -> None:
        """The attempt of `claim`. `telemetry` outlives it."""
        self.rank, self.clock, self.startup, self.preemption = rank, clock, startup, rank.preemption
        self.recipe, self.run, self.state, self.telemetry = rank.recipe, rank.run, rank.state, telemetry
        self.collectives = rank.collectives
        self.number, self.history = claim.number, claim.history
        self.reporter = Reporter(
            self.run,
            self.number,
            self.collectives.rank,
            clock,
            holder=claim.holder,
            budget=self.recipe.train.tokens,
            heartbeat_seconds=self.recipe.machine.heartbeat_seconds,
            quiet=quiet,
            telemetry=telemetry,
            trace=telemetry.begin_attempt(self.run, self.history, clock),
        )
        lanes = lanes_of(self.collectives.rank, self.collectives.size, self.recipe.train.lanes)
        self.batches = Prefetcher(rank.dataset, [lane % self.recipe.train.lanes for lane in lanes], rank.transfer)
        self.step = rank.step
        self.stragglers = StragglerDetector(self.collectives.all_gather(socket.gethostname()))
        self.evaluator = Evaluator(self.recipe, rank.dataset, self.state, rank.transfer, self.collectives.group)
        self.ledger = TimeLedger(self.run, self.number, self.collectives, clock, self.reporter.summary_builder)
        self.checkpointer = Checkpointer(rank, claim, clock, self.reporter, self.ledger)

    def __enter__(self) -> Self:
        self.reporter.__enter__()
        self.reporter.emit(events.AttemptClaimed(ranks=self.collectives.size))
        try:
            self.ledger.write(0)
            self.startup.done("claim")
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.batches.close()
        self.checkpointer.close()
        self.reporter.__exit__(kind, error, trace)

    def resume(self) -> int:
        """Restore the newest undamaged checkpoint; returns its position [tokens], 0 if there is none."""
        with self._startup_phase("restore"):
            if rollback := self.history.requested_rollback:
                self.reporter.emit(events.RollbackRequested(to=rollback.skip_from, by=rollback.by or ""))
            for commit in reversed(self.history.commits):
                if self._restore(commit):
                    return commit.tokens
            if self.history.commits:
                self.reporter.emit(events.RestoreNothingSound(action="beginning again at 0 tokens"))
            self.state.reset()
            return 0

    def stop_level(self) -> int:
        """The highest stop level of any rank: 0, STOP or IMMEDIATE."""
        return int(max(self.collectives.all_gather(self.preemption.level)))

    def should_skip(self, position: int) -> bool:
        """Whether a decision skips the batch at `position`."""
        decision = self.history.skip_decision(position)
        if not decision and not any(start <= position < end for start, end in self.state.skipped):
            return False
        self.checkpointer.recovery_point.hold()
        if decision:
            self.state.skipped.add((decision.skip_from, decision.skip_to))
        self.reporter.tokens = position + self.recipe.train.batch_tokens
        reason = decision.reason if decision else "as decided before"
        self.reporter.emit(events.BatchSkipped(batch=position, reason=reason))
        return True

    def decide(self, verdict: BatchVerdict, position: int) -> str:
        """Record the decision about the batch at `position`; returns its action.

        Raises:
            HeadwayError: the action is to stop, or the limit of decisions is reached.
        """
        policy, batch = self.recipe.train.stability, self.recipe.train.batch_tokens
        self.reporter.emit(events.BatchJudged(batch=position, action=verdict.action, reason=verdict.reason))
        self.checkpointer.await_save()
        if verdict.action == "stop" or len(self.history.bad_batches) >= policy.limit:
            self.checkpointer.save()
            self.checkpointer.await_save()
            raise HeadwayError(
                f"the batch at {position:,} tokens: {verdict.reason}; after {len(self.history.bad_batches)} decisions "
                f"the run was stopped (train.stability). {remedy(self.run.history())}"
            )
        rollback = verdict.action == "rollback"
        skip_from = max(0, position - batch * (policy.rollback_batches - 1)) if rollback else position
        seq = self.collectives.on_rank0(
            lambda: (
                self.run.journal.append(
                    Decided,
                    self.number,
                    action=verdict.action,
                    reason=verdict.reason,
                    skip_from=skip_from,
                    skip_to=position + batch,
                    restored=skip_from if rollback else None,
                ).seq
            )
        )
        self.history = self.run.history(upto=seq)
        return verdict.action

    def evaluate(self, position: int) -> int:
        """Compute the held-out loss; returns the stop level, which interrupts the evaluation if it is above 0."""
        with self._startup_phase("evaluation"):
            loss, stop = self.evaluator.loss(self.preemption)
        if not stop:
            self.state.held_out, self.state.last_evaluation = loss, position
            self.reporter.emit(events.EvaluationDone(held_out=loss))
        return stop

    def on_step(self, position: int, gradient: Gradient, rate: float, seconds: float) -> None:
        """Record a step that ended at `position`, with the learning rate `rate`."""
        self.checkpointer.on_step(position, seconds)
        self.reporter.step(position, gradient.loss, gradient.norm, rate, seconds)
        if started := self.startup.step():
            self.reporter.emit(started)

    def on_timings(self, timings: Sequence[StepTiming]) -> None:
        """Record the times of a step on each rank; report a new straggler, or that there is none any more.

        Every rank finds the same straggler; rank 0 warns.
        """
        if not self.stragglers.update(timings):
            return
        slow = self.stragglers.slow
        if slow and self.collectives.is_rank0:
            self.reporter.emit(slow)
        elif slow is None:
            self.reporter.emit(events.RankRecovered())

    def end(self, outcome: str, reason: str) -> None:
        """Write the last ledger, and record the end of the attempt in the journal."""
        self.checkpointer.await_save()
        position = self.checkpointer.recovery_point.tokens
        if position == self.checkpointer.last_save:  # else the steps since are lost, and their time with them
            self.ledger.write(position)
        self.collectives.on_rank0(
            lambda: self.run.journal.append(Ended, self.number, outcome=outcome, reason=reason, tokens=position).seq
        )
        self.reporter.emit(events.AttemptEnded(outcome=outcome, reason=reason))

    @contextmanager
    def _startup_phase(self, phase: str) -> Iterator[None]:
        """Spend the block in `phase`; before the first step, it is also a stage of the startup."""
        with self.clock.during(phase), self.telemetry.span(phase) as span:
            yield
            span.set(tokens=self.reporter.tokens)
        self.startup.done(phase)

    def _restore(self, commit: Committed) -> bool:
        """Restore a checkpoint on all ranks; report it and return False if any rank finds damage."""
        checkpoint = StoredCheckpoint(self.run.store, commit)
        try:
            for shard in checkpoint.manifest.shards if self.collectives.is_rank0 else ():
                checkpoint.check_header(shard)
            self.state.load(checkpoint)
            problem = None
        except DamageError as error:
            problem = str(error)
        problems = [each for each in self.collectives.all_gather(problem) if each]
        if problems:
            self.checkpointer.saver.retention.damaged.add(commit.manifest)
            self.reporter.emit(events.CheckpointDamaged(at=commit.tokens, problem=problems[0]))
            return False
        self.reporter.tokens = commit.tokens
        self.checkpointer.on_restore(commit)
        self.reporter.emit(events.CheckpointRestored(at=commit.tokens, manifest=commit.manifest))
        if changed := differences(checkpoint.manifest.environment, self.rank.environment):
            self.reporter.emit(events.EnvironmentChanged(changed=changed, effect="bits may differ from here on"))
        return True
