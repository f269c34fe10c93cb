"""Token ids of a prompt: the engine looks each up in its embedding, and an id that has no row there kills it.

vLLM accepts ids up to the largest of its tokenizer and of the model. The tokenizer says one too many, and may have more
entries than the model has rows.
"""

from typing import Any


def require_token_ids(prompt: Any, rows: int) -> None:
    """Check each token id of a rendered prompt; `rows`: rows of the model's embedding.

    Raises:
        VLLMValidationError: the model has no such token.
    """
    from vllm.exceptions import VLLMValidationError

    token_ids = prompt.get("prompt_token_ids") if isinstance(prompt, dict) else None
    if not token_ids:
        return
    lowest, highest = min(token_ids), max(token_ids)
    if lowest < 0 or highest >= rows:
        wrong = lowest if lowest < 0 else highest
        message = f"The token id {wrong} is not in the vocabulary, whose ids are 0 to {rows - 1}."
        raise VLLMValidationError(message, parameter="prompt", value=wrong)
