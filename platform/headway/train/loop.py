"""The story of training: while there are tokens left, take a batch, judge it, step, and save when it is time.

Everything here is a function of the token position, so a run that is stopped anywhere goes on from its last commit
as if nothing had happened.
"""

import time

from headway.train.attempt import TrainingAttempt
from headway.train.preemption import IMMEDIATE
from headway.train.schedule import due
from headway.train.stability import judge


def train(attempt: TrainingAttempt) -> str:
    """Train until the budget is spent, or somebody asks to stop. Collective.

    Returns:
        `done`, `preempted`, or `rolled back`: a decision asks for another attempt from an earlier checkpoint.
    """
    recipe, clock, step = attempt.recipe, attempt.clock, attempt.step
    budget, batch = recipe.train.tokens, recipe.train.batch_tokens
    position = saved = attempt.resume()
    save = False
    stop = attempt.asked_to_stop()

    clock.enter("step")
    while position < budget and not stop:
        if due(recipe.evaluation.every_tokens or max(1, budget // 10), attempt.state.evaluated, position):
            stop = attempt.evaluate(position)
            continue
        if save or due(recipe.checkpoint.every_tokens, saved, position):
            attempt.save(position)
            saved, save = position, False
        if attempt.skips(position):
            position += batch
            continue

        began = time.monotonic()
        with clock.during("data"):
            lanes = attempt.batches.get(position)
        fetched = time.monotonic() - began
        gradient = step.gradient(lanes, attempt.preemption, save=attempt.wishes_to_save(), fetched=fetched)
        if verdict := judge(recipe.train.stability, attempt.state.losses, gradient.loss, gradient.norm):
            step.drop()
            if attempt.decide(verdict, position) == "rollback":
                return "rolled back"
            continue
        attempt.await_copy()
        rate = step.apply(position, gradient)

        position, stop, save = position + batch, gradient.stop, gradient.save
        attempt.stepped(position, gradient, rate, time.monotonic() - began)

    if not stop:
        stop = attempt.evaluate(position)
    finished = not stop
    clock.enter("drain")
    if finished or (position > saved and stop < IMMEDIATE):
        attempt.save(position)
    return "done" if finished else "preempted"
