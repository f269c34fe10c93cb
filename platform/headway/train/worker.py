"""The work of a rank's process: joins the other ranks, and attempts the run until it ends."""

import logging
import os
import sys
import time
from typing import Any

import torch
import torch.distributed as dist

from headway import recipe as recipes
from headway.errors import UsageError
from headway.objectstore import open_store
from headway.runs import Run, process_start, this_process
from headway.telemetry import Trace
from headway.train import trial
from headway.train.attempt import TrainingAttempt
from headway.train.claim import claim_run
from headway.train.clock import Clock, parse_queue_times
from headway.train.host.preemption import Preemption
from headway.train.host.rank_heartbeat import HeartbeatWriter
from headway.train.host.task import Task
from headway.train.loop import train
from headway.train.rank import Rank
from headway.train.sinks.run_telemetry import RunTelemetry
from headway.train.startup_timer import StartupTimer


def train_task(task: Task, stop_level: Any, heartbeat: HeartbeatWriter) -> None:
    """Train `task` on this rank until it is done, stopped or failed."""
    preemption = Preemption(stop_level, task.launcher).listen()
    launch_time = process_start(task.launcher) or task.launch_time
    startup = StartupTimer(launch_time, preload_stages())
    startup.done("rendezvous")
    logging.getLogger("torch").setLevel(logging.ERROR)
    recipe = recipes.parse(task.recipe)
    run = Run(open_store(task.store), task.run)
    with RunTelemetry(
        recipe, preemption, run=task.run, launcher=task.launcher, exposure=task.exposure, grace=task.grace
    ) as telemetry:
        try:
            rank = Rank.join(recipe, run, preemption, heartbeat, startup)
            try:
                run_attempts(rank, task, startup, launch_time, telemetry)
            except BaseException:
                # Closing takes a moment. After the group is destroyed the other ranks fail at once, and the first
                # failure is taken for the cause.
                telemetry.close()
                raise
            finally:
                dist.destroy_process_group()
        except torch.OutOfMemoryError as error:
            raise UsageError(trial.out_of_memory(recipe)) from error
        heartbeat.stop()  # the watchdog must not watch a rank that only serves its last metrics
        telemetry.linger()


def run_attempts(rank: Rank, task: Task, startup: StartupTimer, launch_time: float, telemetry: RunTelemetry) -> None:
    """Attempt the run until it is done, stopped or failed. A rollback starts another attempt. Collective."""
    preemption, heartbeat = rank.preemption, rank.heartbeat
    holder = this_process(task.launcher.launch, Trace.parse(task.launcher.trace))
    clock = Clock(launch_time, parse_queue_times(os.environ.get("HEADWAY_QUEUE")), heartbeat)
    predecessor = None
    if max(rank.collectives.all_gather(preemption.level)):
        return
    trial.run(rank, task.tokens)
    startup.done("trial")
    if max(rank.collectives.all_gather(preemption.level)):
        return
    while True:
        claim = claim_run(rank, holder, take_over=task.take_over, predecessor=predecessor)
        with TrainingAttempt(rank, claim, clock, startup, telemetry, quiet=task.quiet) as attempt:
            outcome = train(attempt)
            if outcome != "rolled back":
                attempt.end(outcome, "budget reached" if outcome == "done" else "asked to stop")
                return
        predecessor, start = claim.number, time.time()
        clock, startup = Clock(start, heartbeat=heartbeat), StartupTimer(start)


def preload_stages() -> list[tuple[str, float]]:
    """The startup stages of the forkserver, each with its end [s since 1970]: process start, and imports."""
    preload = sys.modules.get("headway.train.preload")
    return [("launch", preload.IMPORT_START), ("imports", preload.IMPORT_END)] if preload else []
