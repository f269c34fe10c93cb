"""What a training process does, from its first instruction of ours to its last."""

import logging
import os
import time
from typing import Any

import torch.distributed as dist

from headway import recipe as recipes
from headway.store import Run, born, open_store, this_process
from headway.train.attempt import Attempt
from headway.train.clock import Clock, queue
from headway.train.loop import train
from headway.train.preemption import Preemption
from headway.train.pulse import Pulse
from headway.train.rank import Rank
from headway.train.task import Task


def train_task(task: Task, flag: Any, pulse: Pulse) -> None:
    """Train `task` on this rank until it is done, is stopped, or fails."""
    preemption = Preemption(flag, task.launcher).listen()
    logging.getLogger("torch").setLevel(logging.ERROR)
    recipe = recipes.parse(task.recipe)
    run = Run(open_store(task.store), task.run)
    rank = Rank.join(recipe, run, preemption, pulse)
    holder = this_process(task.launcher.launch)
    clock = Clock(born(task.launcher) or task.launched, queue(os.environ.get("HEADWAY_QUEUE")), pulse)
    follows = None
    try:
        if max(rank.ranks.gather(preemption.level)):
            return
        while True:
            with Attempt(rank, holder, clock, task=task, follows=follows) as attempt:
                outcome = train(attempt)
                if outcome != "rolled back":
                    attempt.end(outcome, "budget reached" if outcome == "done" else "asked to stop")
                    return
            clock, follows = Clock(time.time(), pulse=pulse), attempt.number
    finally:
        dist.destroy_process_group()
