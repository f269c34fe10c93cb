"""Schedules as functions of tokens: the learning rate, and when something is due."""

import math

from headway.recipe import Recipe


def learning_rate(recipe: Recipe, tokens: int) -> float:
    """Learning rate of the batch that starts at `tokens`.

    Linear warm-up, then cosine (Loshchilov and Hutter, 2017) or constant with a linear decay (WSD: Hu et al., 2024,
    MiniCPM), down to `final_ratio` of the peak at the end of the budget.
    """
    peak = recipe.train.optimizer.learning_rate
    plan, budget, warmup = recipe.train.schedule, recipe.train.tokens, recipe.train.warmup_tokens
    if tokens < warmup:
        return peak * (tokens + recipe.train.batch_tokens) / (warmup + recipe.train.batch_tokens)
    if plan.kind == "cosine":
        passed = (tokens - warmup) / max(1, budget - warmup)
        share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, passed)))
    else:
        share = min(1.0, max(0.0, (budget - tokens) / max(1, recipe.train.decay_tokens)))
    return peak * (plan.final_ratio + (1.0 - plan.final_ratio) * share)


def due(every: int | None, since: int, now: int) -> bool:
    """Whether a multiple of `every` tokens lies in (since, now]; never if `every` is None."""
    return every is not None and now // every > since // every
