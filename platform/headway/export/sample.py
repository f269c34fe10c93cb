"""Generates text with an exported model."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_module_registration_hook

from headway.errors import HeadwayError, UsageError
from headway.output_text import one_line
from headway.registry.model_folder import check_model_folder

MAX_MODULES = 20_000
"""Most modules of a model. The largest ones have some thousands."""
FEW_ELEMENTS = 1 << 24
"""Elements that any model may have, such as small tables that are computed and not stored."""
ELEMENTS_PER_BYTE = 4
"""Most elements that a byte of weights may hold."""
MAX_REASON = 300
"""Longest quoted reason of a library [characters]."""


def continuation(directory: Path, prompt: str, tokens: int) -> str:
    """Greedy continuation of `prompt` by the model in `directory`, at most `tokens` tokens.

    Stops at the end of a document. An empty prompt starts a document. Reads only `directory`, and prints nothing.

    Raises:
        UsageError: `directory` holds no exported model.
    """
    model = load(directory)
    with quiet():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
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
    """Load the model in `directory` with transformers, whoever wrote it. Prints nothing, and runs no code of the model.

    Raises:
        UsageError: `directory` holds no model that transformers knows, or weights are missing.
    """
    check_model_folder(directory)
    with quiet(), errors_named(directory):
        from transformers import AutoModelForCausalLM

        _check_size(directory)
        model, report = AutoModelForCausalLM.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
        if missing := sorted(report["missing_keys"]):
            raise UsageError(f"{directory} lacks weights that its config.json asks for: {', '.join(missing[:3])}")
    return model.eval()


@contextmanager
def errors_named(directory: Path) -> Iterator[None]:
    """Turn any error of transformers into one line that names the model. It raises whatever it meets in a model."""
    try:
        yield
    except HeadwayError:
        raise
    except Exception as error:
        reason = one_line(f"{type(error).__name__}: {error}".partition("\n")[0])[:MAX_REASON]
        raise UsageError(f"{directory} is not a model that can be used: {reason}") from error


def _check_size(directory: Path) -> None:
    """Refuse a configuration of a much larger model than the weights hold: all of it would be allocated."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    with _few_modules(directory), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    elements = sum(tensor.numel() for tensor in chain(model.parameters(), model.buffers()))
    stored = weight_bytes(directory)
    if elements > FEW_ELEMENTS + ELEMENTS_PER_BYTE * stored:
        raise UsageError(
            f"{directory}: its config.json asks for {elements:,} weights, but its files have {stored:,} bytes"
        )


@contextmanager
def _few_modules(directory: Path) -> Iterator[None]:
    """Refuse a model that consists of too many modules, while it is built."""
    count = 0

    def register(*_: object) -> None:
        nonlocal count
        count += 1
        if count > MAX_MODULES:
            raise UsageError(f"{directory}: its config.json asks for more than {MAX_MODULES:,} modules")

    hook = register_module_module_registration_hook(register)
    try:
        yield
    finally:
        hook.remove()


def weight_bytes(directory: Path) -> int:
    """Length of all weights in a directory [bytes]."""
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


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
