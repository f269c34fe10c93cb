"""Generates text with an exported model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from headway.errors import UsageError


def continuation(directory: Path, prompt: str, tokens: int) -> str:
    """Greedy continuation of `prompt` by the model in `directory`, at most `tokens` tokens.

    Stops at the end of a document. An empty prompt starts a document. Reads only `directory`, and prints nothing.

    Raises:
        UsageError: `directory` holds no exported model.
    """
    model = load(directory)
    with quiet():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        prefix = tokenizer.encode(prompt, add_special_tokens=False) or [tokenizer.eos_token_id]
        inputs = torch.tensor([prefix])
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=tokens,
            do_sample=False,
        )
        text: str = tokenizer.decode(output[0, len(prefix) :], skip_special_tokens=True)
    return text


def load(directory: Path) -> Any:
    """Load the model in `directory` with transformers. Prints nothing.

    Raises:
        UsageError: `directory` holds no exported model.
    """
    if not (directory / "config.json").is_file():
        raise UsageError(f"{directory} holds no exported model (no config.json); make one with headway export")
    with quiet():
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages and progress bars of transformers, and restore their settings afterwards."""
    from transformers.utils import logging as log

    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
