"""A look at what an exported model writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from headway.errors import UsageError


def continuation(directory: Path, prompt: str, tokens: int) -> str:
    """What the model in `directory` writes after `prompt`, at most `tokens` tokens, the likeliest each time.

    Stops at the end of a document. Reads nothing but `directory`; prints nothing. An empty prompt starts a document.
    Raises UsageError where `directory` holds no exported model.
    """
    model = load(directory)
    with quiet():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
        prefix = tokenizer.encode(prompt, add_special_tokens=False) or [tokenizer.eos_token_id]
        inputs = torch.tensor([prefix])
        written = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=tokens,
            do_sample=False,
        )
        text: str = tokenizer.decode(written[0, len(prefix) :], skip_special_tokens=True)
    return text


def load(directory: Path) -> Any:
    """The model in `directory`, as transformers loads it; prints nothing.

    Raises:
        UsageError: there is none.
    """
    if not (directory / "config.json").is_file():
        raise UsageError(f"{directory} holds no exported model (no config.json); make one with headway export")
    with quiet():
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(directory, local_files_only=True).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers' notes and progress bars, and gives them back as they were."""
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
