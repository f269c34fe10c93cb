"""Estimate of the tokens that a request may use, from its body alone; too many rather than too few.

The quota corrects the estimate once the engine has counted, so the order of magnitude is enough.
"""

from typing import Any

from headway.serve.request_body import RequestBody

BYTES_PER_TOKEN = 4
"""Bytes of the body for each token of the prompt: typical of English and of code, JSON syntax included."""
DEFAULT_MAX_TOKENS = 256
"""Estimated length of a completion whose request sets no limit [tokens]."""
LIMIT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Fields that limit the length of a completion; each API reads its own, so the largest counts."""


def estimate_tokens(body: RequestBody) -> int:
    """Estimate the tokens of all prompts and completions of a request.

    A body that is no JSON object counts by its size: `Validation` reports what is wrong.
    """
    prompt_tokens = -(-len(body.content) // BYTES_PER_TOKEN)
    return prompt_tokens + (DEFAULT_MAX_TOKENS if body.fields is None else _completion_tokens(body.fields))


def count_choices(fields: dict[str, Any]) -> int:
    """Count the choices that a request asks for: prompts times `n`."""
    return (_positive_int(fields.get("n")) or 1) * _count_prompts(fields)


def _completion_tokens(fields: dict[str, Any]) -> int:
    """Estimate the tokens of all completions."""
    limit = max(_positive_int(fields.get(name)) for name in LIMIT_FIELDS)
    return (limit or DEFAULT_MAX_TOKENS) * count_choices(fields)


def _count_prompts(fields: dict[str, Any]) -> int:
    """Count the prompts: a list of texts, of token lists or of conversations holds several."""
    for name in ("prompt", "messages"):
        prompts = fields.get(name)
        if isinstance(prompts, list) and prompts and isinstance(prompts[0], (str, list)):
            return len(prompts)
    return 1


def _positive_int(value: object) -> int:
    """Return a positive integer as it is, and 0 for any other value."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
