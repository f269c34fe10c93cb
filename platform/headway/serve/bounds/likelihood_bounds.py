"""Bounds of the likelihoods that a response holds: one for each choice, each token, and each alternative of it.

They are kept until the response is complete, and rendered in the event loop, each as an object of its own. Each choice
repeats those of a prompt that is echoed.
"""

from typing import Any

from headway.serve.tenants.estimate import LIMIT_FIELDS, count_choices

MAX_LIKELIHOODS = 2**19
"""Likelihoods of a response: 100 MiB, and some seconds to compute."""
COUNTS = ("logprobs", "top_logprobs", "prompt_logprobs")
"""Fields that ask for likelihoods; a flag asks for that of the token itself."""
TEXTS = ("prompt", "input", "messages")
"""Fields that hold prompts."""


def likelihoods_problem(fields: dict[str, Any]) -> str | None:
    """What is wrong with the number of likelihoods that a request asks for, if its fields are of the right kinds."""
    alternatives = max(int(fields.get(name) or 0) for name in COUNTS)
    if alternatives <= 0:
        return None
    tokens = count_choices(fields) * max(0, *(fields.get(name) or 0 for name in LIMIT_FIELDS))
    if fields.get("echo") or fields.get("prompt_logprobs"):
        tokens += max(1, fields.get("n") or 1) * sum(_size(fields.get(name)) for name in TEXTS)
    if tokens * (alternatives + 1) <= MAX_LIKELIHOODS:
        return None
    return (
        f"The request may have more than {MAX_LIKELIHOODS} likelihoods in its response. Ask for fewer tokens, choices, "
        "prompts or alternatives (logprobs)."
    )


def _size(value: Any) -> int:
    """How many tokens a prompt has at most: one for each character or id."""
    size, pending = 0, [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            size += len(item)
            pending.extend(each for each in item if not isinstance(each, int))
    return size
