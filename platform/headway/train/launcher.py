"""Starting the ranks of a run on this machine, and saying how it went.

torchelastic runs the ranks from a thread; this process's main thread keeps the signals, and hands a wish to stop to
the ranks through shared memory, where it waits for them whatever they are doing. How the run went is read from the
journal, never from exit codes.
"""

import dataclasses
import logging
import multiprocessing
import os
import secrets
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

from headway import errors
from headway import recipe as recipes
from headway.data import open_data
from headway.errors import FencedError, HeadwayError, UsageError
from headway.recipe import Recipe
from headway.store import Attempt, Ended, Holder, Run, Store, this_process
from headway.train.preemption import Preemption
from headway.train.task import Task, work

FORKSERVER = "forkserver"
POLL_SECONDS = 0.05
EXIT_CODES = {"done": 0, "preempted": 75, "failed": 1}


@dataclass(frozen=True)
class Outcome:
    """How a launch went."""

    outcome: str
    """`done`, `preempted` or `failed`."""
    reason: str
    tokens: int
    attempt: int | None
    exit_code: int


def launch(
    recipe: Recipe, name: str, store: Store, *, ranks: int, take_over: bool = False, quiet: bool = False
) -> Outcome:
    """Train the run `name` here, on `ranks` processes, from where it stands.

    Raises:
        UsageError: recipe, data and run do not fit together, or more ranks than lanes are asked for.
        HeldError: somebody alive is training the run.
    """
    launched = time.time()
    flag = multiprocessing.get_context(FORKSERVER).Value("i", 0, lock=False)
    preemption = Preemption(flag).listen()
    run = Run(store, name)
    launcher = this_process(secrets.token_hex(8))
    if done := prepare(run, recipe, launcher, ranks=ranks, take_over=take_over):
        return done

    task = Task(
        recipe=recipes.to_yaml(recipe),
        run=name,
        store=store.url,
        launcher=launcher,
        launched=launched,
        grace=recipe.machine.grace_seconds,
        take_over=take_over,
        quiet=quiet,
    )
    agent = Agent(task, flag, ranks)
    agent.start()
    deadline = float("inf")
    while agent.is_alive():
        agent.join(POLL_SECONDS)
        if preemption.level > flag.value:
            flag.value = preemption.level
            deadline = min(deadline, time.monotonic() + recipe.machine.grace_seconds)
        if time.monotonic() > deadline:
            for child in multiprocessing.active_children():
                child.kill()
        if time.monotonic() > deadline + recipe.machine.grace_seconds:  # not even the agent comes back
            break
    return conclude(run, task.launcher.launch, agent.failure, stopped=bool(preemption.level))


def prepare(run: Run, recipe: Recipe, launcher: Holder, *, ranks: int, take_over: bool) -> Outcome | None:
    """See that the run may be trained, before anything heavy is loaded; an outcome if it is done already."""
    if ranks > recipe.train.lanes:
        raise UsageError(
            f"{ranks} ranks cannot share a batch of {recipe.train.lanes} lanes; "
            f"use at most {recipe.train.lanes}, or begin a run with more train.lanes"
        )
    dataset = open_data(recipe)
    run.freeze(recipe)
    if not take_over:
        run.check_free(launcher)
    history = run.history()
    for attempt in history.attempts:
        if attempt.claim.data != dataset.digest:
            raise UsageError(
                f"run {run.name} was begun on other data than {recipe.data_path} holds now "
                f"({attempt.claim.data} and {dataset.digest}); restore that data, or begin a new run with --run NAME"
            )
    if history.done:
        last = history.attempts[-1]
        return Outcome("done", "done before; nothing was left to do", history.tokens, last.number, 0)
    return None


class Agent(threading.Thread):
    """torchelastic's agent for this machine, in a thread of its own."""

    def __init__(self, task: Task, flag: Any, ranks: int) -> None:
        super().__init__(name="torchelastic", daemon=True)
        self.task, self.flag, self.ranks = task, flag, ranks
        self.failure: tuple[str, str] | None = None
        """Kind and message of the first error on a rank."""

    def run(self) -> None:
        """Run the ranks to their end."""
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=self.ranks,
            run_id=self.task.launcher.launch,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=POLL_SECONDS,
            start_method=FORKSERVER,
        )
        try:
            elastic_launch(config, work)(self.task, self.flag)
        except ChildFailedError as error:
            self.failure = _root_cause(error)
        except Exception as error:  # whatever torchelastic raises is this launch's outcome
            self.failure = (type(error).__name__, str(error))


def _root_cause(error: Any) -> tuple[str, str]:
    """Kind and message of the failure that came first: later ones are mostly ranks that lost their peers."""
    rank, first = error.get_first_failure()
    if first.exitcode < 0:
        return "", f"rank {rank} was killed by {signal.Signals(-first.exitcode).name}"
    said = first.error_file_data.get("message", f"left with code {first.exitcode}")
    kind, _, message = (said if isinstance(said, str) else said["message"]).partition(": ")
    return kind, f"rank {rank}: {message}" if kind not in vars(errors) else message


def preload(main: str) -> None:
    """Begin to load what the ranks need, beside what this process does meanwhile.

    `main` is the module that this process was started with: multiprocessing imports it in every rank.
    """
    from multiprocessing import forkserver

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks of a launch are on this machine
    forkserver.set_forkserver_preload(["headway.train.preload", main])
    forkserver.ensure_running()


def conclude(run: Run, launch_id: str, failure: tuple[str, str] | None, *, stopped: bool) -> Outcome:
    """How the launch went, by the journal; says there that it failed, if nobody else could."""
    mine = [a for a in run.history().attempts if a.claim.holder.launch == launch_id]
    tokens = run.history().tokens
    if not mine:
        return _unclaimed(failure, tokens, stopped=stopped)
    last = mine[-1]
    if last.ended:
        return Outcome(last.outcome, last.ended.reason, last.ended.tokens, last.number, EXIT_CODES[last.outcome])
    if stopped and failure is None:  # asked to stop between two attempts, or on the way out
        return _say_ended(run, last, "preempted", "asked to stop", tokens)
    kind, message = failure or ("", "its ranks left without a word")
    problem = getattr(errors, kind, HeadwayError)
    if issubclass(problem, FencedError):
        return Outcome("failed", message, tokens, last.number, problem.exit_code)
    ended = _say_ended(run, last, "failed", message or kind, tokens)
    return dataclasses.replace(ended, exit_code=problem.exit_code)


def _unclaimed(failure: tuple[str, str] | None, tokens: int, *, stopped: bool) -> Outcome:
    """How a launch went that never claimed the run."""
    if stopped or failure is None:
        return Outcome("preempted", "asked to stop before the run was claimed", tokens, None, 75)
    kind, message = failure
    problem = getattr(errors, kind, HeadwayError)
    return Outcome("failed", message or kind, tokens, None, problem.exit_code)


def _say_ended(run: Run, attempt: Attempt, outcome: str, reason: str, tokens: int) -> Outcome:
    """Write how an attempt ended, unless it has said so itself, has lost the run, or the store is what failed."""
    try:
        run.journal.append(Ended, attempt.number, outcome=outcome, reason=reason, tokens=tokens)
    except FencedError:
        if said := next(each for each in run.history().attempts if each.number == attempt.number).ended:
            return Outcome(said.outcome, said.reason, said.tokens, attempt.number, EXIT_CODES[said.outcome])
    except HeadwayError as error:
        logging.getLogger("headway").warning("the journal could not be told: %s", error)
    return Outcome(outcome, reason, tokens, attempt.number, EXIT_CODES[outcome])


def reap() -> None:
    """End the process that ranks are forked from."""
    from multiprocessing.forkserver import _forkserver

    _forkserver._stop()  # type: ignore[attr-defined]  # noqa: SLF001 - the standard library has no public way
