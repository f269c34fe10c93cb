"""Starting the ranks of a run on this machine, and saying how it went.

torchelastic runs the ranks from a thread; this process's main thread keeps the signals, and hands a wish to stop to
the ranks through shared memory, where it waits for them whatever they are doing. How the run went is read from the
journal, never from exit codes. On several machines each has its launcher; the first one watches over all ranks, and
is the one that tells the journal.
"""

import dataclasses
import os
import secrets
import socket
import time

from headway import recipe as recipes
from headway.data import open_data
from headway.errors import HeadwayError, UsageError
from headway.objectstore import Store
from headway.recipe import Recipe
from headway.runs import History, Holder, Run, this_process
from headway.telemetry import Spans, Trace, environment_trace
from headway.telemetry.exposition import Exposure, withdraw
from headway.train.agent import Agent
from headway.train.outcome import Failure, Outcome, conclude
from headway.train.preemption import Preemption
from headway.train.rendezvous import TURN_SECONDS, Rendezvous
from headway.train.task import Task
from headway.train.watchdog import NodeReport, Watchdog, first_failure

POLL_SECONDS = 0.05
REPORT_SECONDS = 5.0
"""How long the first machine waits, after a failure, for what the others say of it [s]."""


def launch(
    recipe: Recipe,
    name: str,
    store: Store,
    *,
    ranks: int,
    node: int = 0,
    nodes: int = 1,
    launch_id: str | None = None,
    take_over: bool = False,
    quiet: bool = False,
    exposure: Exposure | None = None,
) -> Outcome:
    """Train the run `name` here, on `ranks` processes, from where it stands.

    This is machine `node` of `nodes` that were all given the same `launch_id`. Metrics are shown as `exposure` says.

    Raises:
        UsageError: recipe, data and run do not fit together, or more ranks than lanes are asked for.
        HeldError: somebody alive is training the run.
    """
    launched = time.time()
    preemption = Preemption().listen()
    spans = Spans(
        "headway-train",
        on=node == 0,
        resource={"headway.run.id": name, "slurm.job.id": os.environ.get("SLURM_JOB_ID")},
    )
    run = Run(store, name)
    launcher = this_process(launch_id or secrets.token_hex(8))
    meeting = Rendezvous(run, launcher.launch, node=node, nodes=nodes, patience=recipe.machine.join_seconds)
    try:
        history = prepare(run, recipe, launcher, ranks=ranks * nodes, take_over=take_over)
    except HeadwayError as error:
        report_absence(meeting, error)
        raise
    if history.done:
        return already_done(history)

    before = previous_trace(history)
    trace = environment_trace() or before
    other = [before] if before and trace and before.trace_id != trace.trace_id else []
    place = spans.record("train.launch", launched, time.time(), parent=trace, links=other, ranks=ranks * nodes)
    launcher = launcher.model_copy(update={"trace": str(trace or place)})
    task = Task(
        recipe=recipes.to_yaml(recipe),
        run=name,
        store=store.url,
        launcher=launcher,
        launched=launched,
        grace=recipe.machine.grace_seconds,
        tokens=history.tokens,
        take_over=take_over,
        quiet=quiet or node > 0,
        exposure=exposure,
    )
    agent = Agent(task, meeting, ranks)
    agent.start()
    try:
        failure = monitor(agent, preemption, Watchdog(recipe.machine.hang_seconds))
        outcome = conclude(run, launcher.launch, failure, stopped=bool(preemption.level), says=meeting.first)
        return dataclasses.replace(outcome, alone=failure is not None and meeting.head_lost())
    finally:
        meeting.shut_down()
        meeting.close()
        spans.close()
        if meeting.first:  # of a rank that was killed
            withdraw(exposure, name, launcher.launch)


def prepare(run: Run, recipe: Recipe, launcher: Holder, *, ranks: int, take_over: bool) -> History:
    """See that the run may be trained, before anything heavy is loaded; returns its past."""
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
    return history


def already_done(history: History) -> Outcome:
    """The outcome of a launch that finds the run done."""
    return Outcome("done", "done before; nothing was left to do", history.tokens, history.attempts[-1].number, 0)


def previous_trace(history: History) -> Trace | None:
    """The trace of the attempts so far, which a launch that was started in none goes on with."""
    found = (Trace.parse(attempt.claim.holder.trace) for attempt in reversed(history.attempts))
    return next((trace for trace in found if trace), None)


def report_absence(meeting: Rendezvous, error: HeadwayError) -> None:
    """Tell the first machine that this one cannot come, lest all wait for it."""
    if not meeting.first:
        host = socket.gethostname()
        meeting.open()
        meeting.publish_final(
            NodeReport(host, 1, failure=Failure(type(error).__name__, f"{host}: {error}", time=time.time()))
        )


def monitor(agent: Agent, preemption: Preemption, watchdog: Watchdog) -> Failure | None:
    """Stay with the ranks to their end: pass on the wish to stop, and watch; returns what went wrong first."""
    grace, turn = agent.task.grace, 0
    deadline, next_turn = float("inf"), time.monotonic()
    while agent.is_alive():
        agent.join(POLL_SECONDS)
        now = time.monotonic()
        if preemption.level > agent.flag.value:
            agent.flag.value = preemption.level
            deadline = min(deadline, now + grace)
        if now > deadline:
            agent.give_up(Failure("", f"it did not save and leave in {grace:.0f} s (machine.grace_seconds)"))
        if agent.given_up:  # not waited for: it may still be looking for machines that will not come
            break
        if now >= next_turn:
            turn, next_turn = turn + 1, now + TURN_SECONDS
            if problem := poll_nodes(agent, watchdog, turn):
                agent.give_up(problem)
    return root_failure(agent, turn) if agent.failure else None


def poll_nodes(agent: Agent, watchdog: Watchdog, turn: int) -> Failure | None:
    """Tell the others how this machine is; the first one sees whether all are well, the others whether it goes on."""
    meeting = agent.meeting
    word = local_report(agent, turn)
    meeting.publish(word)
    if meeting.first:
        return watchdog.look({**meeting.poll(), meeting.node: word}, time.monotonic())
    return Failure("", "the first machine sent all home, or is gone") if meeting.is_over() else None


def root_failure(agent: Agent, turn: int) -> Failure | None:
    """What went wrong first: on the first machine, when all others have told, or kept quiet for too long."""
    meeting = agent.meeting
    meeting.publish_final(local_report(agent, turn + 1))
    if not meeting.first or meeting.nodes == 1:
        return agent.failure
    before, deadline = meeting.poll(), time.monotonic() + REPORT_SECONDS
    words = before
    while any(word.failure is None for word in words.values()) and time.monotonic() < deadline:
        meeting.shut_down()
        time.sleep(POLL_SECONDS)
        words = meeting.poll()
    for node, word in words.items():
        if word.failure is None and node in before and word.turn == before[node].turn:
            ranks = ranks_of(node, agent.ranks)
            return Failure("", f"{word.host} is lost, and {ranks} with it: it says nothing any more", word.host)
    return first_failure([agent.failure, *(word.failure for word in words.values())])


def ranks_of(node: int, ranks: int) -> str:
    """The `ranks` ranks of machine `node` by name. Not read from its signs: it may be lost before it gave one."""
    first = node * ranks
    return f"rank {first}" if ranks == 1 else f"ranks {first} to {first + ranks - 1}"


def local_report(agent: Agent, turn: int) -> NodeReport:
    """How this machine is."""
    signs = agent.pulses.read(first=agent.meeting.node * agent.ranks)
    return NodeReport(socket.gethostname(), turn, tuple(signs), agent.failure)
