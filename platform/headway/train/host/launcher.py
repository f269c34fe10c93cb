"""Starts the ranks of a run on this node, supervises them, and returns the outcome.

torchelastic runs the ranks from a thread. The main thread of this process handles the signals, and passes stop requests
to the ranks through shared memory. The outcome comes from the journal, never from exit codes. Each node has its own
launcher; the one on the head node watches all ranks and writes to the journal.
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
from headway.runs.rollback import roll_back, stands_at
from headway.telemetry import Spans, Trace, environment_trace
from headway.telemetry.metrics_server import MetricsConfig, remove_target
from headway.train.host.agent import Agent
from headway.train.host.outcome import Failure, Outcome, conclude
from headway.train.host.preemption import Preemption
from headway.train.host.rendezvous import PUBLISH_SECONDS, Rendezvous
from headway.train.host.task import Task
from headway.train.host.watchdog import NodeReport, Watchdog, first_failure

POLL_SECONDS = 0.05
REPORT_SECONDS = 5.0
"""After a failure, how long the head node waits for the other nodes' reports of it [s]."""


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
    from_tokens: int | None = None,
    quiet: bool = False,
    exposure: MetricsConfig | None = None,
) -> Outcome:
    """Train the run `name` with `ranks` processes on this node, from its last checkpoint.

    With `from_tokens`, it goes back to its checkpoint there. This is node `node` of `nodes`, which share `launch_id`.
    `exposure` says where rank 0 serves metrics.

    Raises:
        UsageError: recipe, data, run and ranks do not fit together, or the run has no such checkpoint.
        HeldError: a live process is training the run.
    """
    launch_time = time.time()
    preemption = Preemption().listen()
    spans = Spans(
        "headway-train",
        on=node == 0,
        resource={"headway.run.id": name, "slurm.job.id": os.environ.get("SLURM_JOB_ID")},
    )
    run = Run(store, name)
    launcher = this_process(launch_id or secrets.token_hex(8))
    rendezvous = Rendezvous(run, launcher.launch, node=node, nodes=nodes, join_seconds=recipe.machine.join_seconds)
    try:
        history = prepare(run, recipe, launcher, ranks=ranks * nodes, take_over=take_over)
        if from_tokens is not None and node == 0:
            history = roll_back(run, from_tokens, launcher, take_over=take_over)
    except HeadwayError as error:
        report_absence(rendezvous, error)
        raise
    if history.done and (from_tokens is None or stands_at(history, from_tokens)):
        return already_done(history)

    trace = record_launch(spans, history, launch_time, ranks=ranks * nodes)
    task = Task(
        recipe=recipes.to_yaml(recipe),
        run=name,
        store=store.url,
        launcher=launcher.model_copy(update={"trace": str(trace)}),
        launch_time=launch_time,
        grace=recipe.machine.grace_seconds,
        tokens=history.tokens,
        take_over=take_over,
        quiet=quiet or node > 0,
        exposure=exposure,
    )
    try:
        return supervise(Agent(task, rendezvous, ranks), run, preemption, Watchdog(recipe.machine.hang_seconds))
    finally:
        spans.close()


def prepare(run: Run, recipe: Recipe, launcher: Holder, *, ranks: int, take_over: bool) -> History:
    """Check that the run can be trained, before anything heavy is loaded; returns its history."""
    if ranks > recipe.train.lanes:
        raise UsageError(
            f"{ranks} ranks cannot share a batch of {recipe.train.lanes} lanes; "
            f"use at most {recipe.train.lanes}, or start a run with more train.lanes"
        )
    dataset = open_data(recipe, verify=True)
    run.freeze(recipe)
    if not take_over:
        run.check_free(launcher)
    history = run.history()
    for attempt in history.attempts:
        if attempt.claim.data != dataset.digest:
            raise UsageError(
                f"run {run.name} was begun on other data than {recipe.data_path} holds now "
                f"({attempt.claim.data} and {dataset.digest}); restore that data, or start a new run with --run NAME. "
                "Data of an earlier Headway that is built again differs where documents were cut: see docs/data.md"
            )
    return history


def already_done(history: History) -> Outcome:
    """The outcome of a launch whose run was done before."""
    return Outcome("done", "already done; nothing left to train", history.tokens, history.attempts[-1].number, 0)


def record_launch(spans: Spans, history: History, launch_time: float, *, ranks: int) -> Trace:
    """Record the span of the launch; returns the trace that the ranks join."""
    previous = previous_trace(history)
    trace = environment_trace() or previous
    links = [previous] if previous and trace and previous.trace_id != trace.trace_id else []
    span = spans.record("train.launch", launch_time, time.time(), parent=trace, links=links, ranks=ranks)
    return trace or span


def previous_trace(history: History) -> Trace | None:
    """The trace of the newest attempt that has one."""
    traces = (Trace.parse(attempt.claim.holder.trace) for attempt in reversed(history.attempts))
    return next((trace for trace in traces if trace), None)


def report_absence(rendezvous: Rendezvous, error: HeadwayError) -> None:
    """Tell the head node that this node cannot join, so that the other nodes need not wait for it."""
    if not rendezvous.is_head:
        host = socket.gethostname()
        rendezvous.open()
        rendezvous.publish_final(
            NodeReport(host, 1, failure=Failure(type(error).__name__, f"{host}: {error}", time=time.time()))
        )


def supervise(agent: Agent, run: Run, preemption: Preemption, watchdog: Watchdog) -> Outcome:
    """Run the agent to its end; returns the outcome of the launch."""
    rendezvous, launcher = agent.rendezvous, agent.task.launcher
    agent.start()
    try:
        failure = monitor(agent, preemption, watchdog)
        outcome = conclude(
            run, launcher.launch, failure, stop_requested=bool(preemption.level), writes=rendezvous.is_head
        )
        return dataclasses.replace(outcome, head_lost=failure is not None and rendezvous.head_lost())
    finally:
        rendezvous.shut_down()
        rendezvous.close()
        if rendezvous.is_head:  # a killed rank could not withdraw its target
            remove_target(agent.task.exposure, run.name, launcher.launch)


def monitor(agent: Agent, preemption: Preemption, watchdog: Watchdog) -> Failure | None:
    """Watch the ranks until they exit, and pass stop requests on; returns the root failure."""
    grace, sequence = agent.task.grace, 0
    deadline, next_report = float("inf"), time.monotonic()
    while agent.is_alive():
        agent.join(POLL_SECONDS)
        now = time.monotonic()
        if preemption.level > agent.stop_level.value:
            agent.stop_level.value = preemption.level
            deadline = min(deadline, now + grace)
        if now > deadline:
            agent.abort(Failure("", f"the ranks did not save and exit within {grace:.0f} s (machine.grace_seconds)"))
        if agent.aborted:  # do not wait for the thread: it may still wait for nodes that never come
            break
        if now >= next_report:
            sequence, next_report = sequence + 1, now + PUBLISH_SECONDS
            if failure := poll_nodes(agent, watchdog, sequence):
                agent.abort(failure)
    return root_failure(agent, sequence) if agent.failure else None


def poll_nodes(agent: Agent, watchdog: Watchdog, sequence: int) -> Failure | None:
    """Publish this node's report and check on the others: the head node checks all, the others the head node."""
    rendezvous = agent.rendezvous
    report = local_report(agent, sequence)
    rendezvous.publish(report)
    if rendezvous.is_head:
        return watchdog.check({**rendezvous.poll(), rendezvous.node: report}, time.monotonic())
    return Failure("", "the head node shut the launch down or is unreachable") if rendezvous.is_over() else None


def root_failure(agent: Agent, sequence: int) -> Failure | None:
    """The failure that came first. The head node waits until all others have reported theirs, or count as lost."""
    rendezvous = agent.rendezvous
    rendezvous.publish_final(local_report(agent, sequence + 1))
    if not rendezvous.is_head or rendezvous.nodes == 1:
        return agent.failure
    before, deadline = rendezvous.poll(), time.monotonic() + REPORT_SECONDS
    reports = before
    while any(report.failure is None for report in reports.values()) and time.monotonic() < deadline:
        rendezvous.shut_down()
        time.sleep(POLL_SECONDS)
        reports = rendezvous.poll()
    for node, report in reports.items():
        if report.failure is None and node in before and report.sequence == before[node].sequence:
            ranks = ranks_of(node, agent.ranks)
            return Failure("", f"{report.host} is lost, and {ranks} with it: it no longer reports", report.host)
    return first_failure([agent.failure, *(report.failure for report in reports.values())])


def ranks_of(node: int, ranks: int) -> str:
    """The `ranks` ranks of a node, in words. Computed, because a lost node may never have sent a heartbeat."""
    first = node * ranks
    return f"rank {first}" if ranks == 1 else f"ranks {first} to {first + ranks - 1}"


def local_report(agent: Agent, sequence: int) -> NodeReport:
    """The report of this node."""
    heartbeats = agent.heartbeats.read(first=agent.rendezvous.node * agent.ranks)
    return NodeReport(socket.gethostname(), sequence, tuple(heartbeats), agent.failure)
