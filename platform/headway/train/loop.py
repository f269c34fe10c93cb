"""The training loop: while there are tokens left, take a batch, judge it, step, and save when it is time.

Everything here is a function of the token position, so a run that was stopped anywhere continues from its last
commit as if nothing had happened.
"""

import time

from headway.train.attempt import TrainingAttempt
from headway.train.host.preemption import IMMEDIATE
from headway.train.schedule import due
from headway.train.stability import judge


def train(attempt: TrainingAttempt) -> str:
    """Train until the budget is spent or a stop is requested. Collective.

    Returns:
        `done`, `preempted`, or `rolled back`: a decision requires another attempt, from an earlier checkpoint.
    """
    recipe, clock, step = attempt.recipe, attempt.clock, attempt.step
    budget, batch = recipe.train.tokens, recipe.train.batch_tokens
    position = last_save = attempt.resume()
    save = False
    stop = attempt.stop_level()

    clock.enter("step")
    while position < budget and not stop:
        if due(recipe.evaluation.every_tokens or max(1, budget // 10), attempt.state.last_evaluation, position):
            stop = attempt.evaluate(position)
            continue
        if save or due(recipe.checkpoint.every_tokens, last_save, position):
            attempt.checkpointer.save()
            last_save, save = position, False
        if attempt.should_skip(position):
            position += batch
            continue

        start = time.monotonic()
        with clock.during("data"):
            lanes = attempt.batches.get(position)
        data_seconds = time.monotonic() - start
        gradient, agreement = step.forward_backward(
            lanes, attempt.preemption, save=attempt.checkpointer.should_save(), data_seconds=data_seconds
        )
        if verdict := judge(recipe.train.stability, attempt.state.losses, gradient.loss, gradient.norm):
            step.drop()
            if attempt.decide(verdict, position) == "rollback":
                return "rolled back"
            continue
        attempt.checkpointer.await_copy()
        rate = step.apply(position, gradient)

        position, stop, save = position + batch, agreement.stop, agreement.save
        attempt.on_step(position, gradient, rate, time.monotonic() - start)
        attempt.on_timings(agreement.timings)

    if not stop:
        stop = attempt.evaluate(position)
    clock.enter("drain")
    if not stop:
        attempt.checkpointer.save_last(position)
        return "done"
    if stop < IMMEDIATE:
        attempt.checkpointer.save()
    return "preempted"
