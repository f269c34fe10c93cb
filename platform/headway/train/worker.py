"""What a training process does, from its first instruction of ours to its last."""

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
from headway.train.clock import Clock, queue
from headway.train.heartbeat import HeartbeatWriter
from headway.train.loop import train
from headway.train.preemption import Preemption
from headway.train.rank import Rank
from headway.train.run_telemetry import RunTelemetry
from headway.train.startup_timer import StartupTimer
from headway.train.task import Task


def train_task(task: Task, flag: Any, pulse: HeartbeatWriter) -> None:
    """Train `task` on this rank until it is done, is stopped, or fails."""
    preemption = Preemption(flag, task.launcher).listen()
    began = process_start(task.launcher) or task.launched
    start = StartupTimer(began, loaded())
    start.done("rendezvous")
    logging.getLogger("torch").setLevel(logging.ERROR)
    recipe = recipes.parse(task.recipe)
    run = Run(open_store(task.store), task.run)
    with RunTelemetry(task, recipe, preemption) as instruments:
        try:
            rank = Rank.join(recipe, run, preemption, pulse, start)
            try:
                attempts(rank, task, start, began, instruments)
            except BaseException:
                instruments.close()  # takes a moment; when the group is gone, the others fail at once, and are blamed
                raise
            finally:
                dist.destroy_process_group()
        except torch.OutOfMemoryError as error:
            raise UsageError(trial.out_of_memory(recipe)) from error
        pulse.stop()  # nobody is to watch over a rank that only shows its last figures
        instruments.linger()


def attempts(rank: Rank, task: Task, start: StartupTimer, began: float, instruments: RunTelemetry) -> None:
    """Attempt the run until it is done, is stopped, or fails. Collective."""
    preemption, pulse = rank.preemption, rank.pulse
    holder = this_process(task.launcher.launch, Trace.parse(task.launcher.trace))
    clock = Clock(began, queue(os.environ.get("HEADWAY_QUEUE")), pulse)
    follows = None
    if max(rank.ranks.gather(preemption.level)):
        return
    trial.run(rank, task.tokens)
    start.done("trial")
    if max(rank.ranks.gather(preemption.level)):
        return
    while True:
        with TrainingAttempt(
            rank, holder, clock, start, task=task, follows=follows, instruments=instruments
        ) as attempt:
            outcome = train(attempt)
            if outcome != "rolled back":
                attempt.end(outcome, "budget reached" if outcome == "done" else "asked to stop")
                return
        began, follows = time.time(), attempt.number
        clock, start = Clock(began, pulse=pulse), StartupTimer(began)


def loaded() -> list[tuple[str, float]]:
    """When the process that this one was forked from began to load its code, and when it had [s since 1970]."""
    preload = sys.modules.get("headway.train.preload")
    return [("launch", preload.LOADING), ("imports", preload.LOADED)] if preload else []
