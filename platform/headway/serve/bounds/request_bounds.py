"""Bounds of a request: one table of the fields that a client may send, and the size of the whole document.

vLLM's application checks a body with models that find all that is wrong and report it with what was sent, so a body can
cost thousands of times its bytes. Therefore it is measured first, in one pass that ends at the first excess. What the
limits judge is what the engine gets: a number is a number here, never a text, a flag or a fraction that the models of
vLLM would turn into one.
"""

from typing import Any

from headway.serve.bounds.document_bounds import MAX_INTEGERS, document_problem
from headway.serve.bounds.field_bounds import (
    Biases,
    Bound,
    Fields,
    Objects,
    Prompts,
    Text,
    Texts,
    TokenIds,
    integer,
    integer_or_flag,
    number,
    problem_in,
)
from headway.serve.bounds.grammar_bounds import GRAMMAR_BOUNDS
from headway.serve.bounds.likelihood_bounds import likelihoods_problem

MAX_TOKEN_IDS = MAX_INTEGERS
"""Token ids of a request."""
MAX_PROMPTS = 1024
"""Prompts of a request, as vLLM; `--max-choices` is usually less."""
MAX_MESSAGES = 1024
"""Messages of a conversation, and items of an input of the responses API."""
MAX_MESSAGE_VALUES = 4096
"""Objects, lists and entries of lists in all messages: parts of their content, calls of tools."""
MAX_MESSAGE_ENTRIES = 256
"""Entries of a list in a message: several models are tried on each, each of which has several problems with it."""
MAX_TOOLS = 128
"""Tools of a request, as OpenAI's API."""
MAX_TOOL_VALUES = 2**14
"""Objects, lists and entries of lists in all tools: schemas of their parameters."""
MAX_DOCUMENTS = 1024
"""Documents of a request."""
MAX_STOP_TEXTS = 4
"""Texts to stop at, as OpenAI's API: each is searched for in each new piece of the output."""
MAX_STOP_CHARACTERS = 1024
"""Characters of a text to stop at: so many are held back at the end of a stream."""
MAX_BAD_WORDS = 128
"""Words that must not be generated, as vLLM: each is tokenized twice."""
MAX_WORD_CHARACTERS = 256
"""Characters of such a word."""
MAX_BIASES = 1024
"""Entries of `logit_bias`: the engine keeps them for each step."""
MAX_STOP_TOKEN_IDS = 1024
"""Token ids to stop at."""
MAX_LOGPROB_TOKEN_IDS = 128
"""Token ids whose likelihood is reported, as vLLM."""
MAX_NAME_CHARACTERS = 256
"""Characters of a name or an id; each piece of a stream repeats the request's."""
MAX_PATTERN = 128
"""Sizes in `repetition_detection`: the engine's scheduler tries each length of a pattern after each token."""
MAX_INCLUDES = 64
"""Names in `include`."""


_name = Text(MAX_NAME_CHARACTERS)
_messages = Objects(MAX_MESSAGES, MAX_MESSAGE_VALUES, MAX_MESSAGE_ENTRIES)
_prompts = Prompts(MAX_PROMPTS, MAX_TOKEN_IDS)


def _pattern_size(value: Any) -> str | None:
    """Accept a size of a repeated pattern."""
    return integer(value) or (f"is larger than {MAX_PATTERN}" if value > MAX_PATTERN else None)


def _input(value: Any) -> str | None:
    """Accept items of a conversation, as the responses API has them, or prompts, as that of embeddings."""
    has_items = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    return _messages(value) if has_items else _prompts(value)


BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(
        (
            *("n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens"),
            *("top_logprobs", "top_k", "seed", "priority", "truncate_prompt_tokens", "thinking_token_budget"),
            *("stream_interval", "routed_experts_prompt_start", "max_tool_calls", "dimensions"),
        ),
        integer,
    ),
    **dict.fromkeys(("logprobs", "prompt_logprobs"), integer_or_flag),
    **dict.fromkeys(
        (
            *("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty"),
            *("repetition_penalty", "length_penalty"),
        ),
        number,
    ),
    **dict.fromkeys(
        (
            *("model", "request_id", "session_id", "user", "prompt_cache_key", "previous_response_id"),
            *("service_tier", "safety_identifier", "truncation_side", "reasoning_effort", "encoding_format"),
        ),
        _name,
    ),
    "prompt": _prompts,
    "input": _input,
    "tokens": TokenIds(MAX_TOKEN_IDS),
    "allowed_token_ids": TokenIds(MAX_TOKEN_IDS),
    "stop_token_ids": TokenIds(MAX_STOP_TOKEN_IDS),
    "logprob_token_ids": TokenIds(MAX_LOGPROB_TOKEN_IDS),
    "logit_bias": Biases(MAX_BIASES),
    "stop": Texts(MAX_STOP_TEXTS, MAX_STOP_CHARACTERS),
    "bad_words": Texts(MAX_BAD_WORDS, MAX_WORD_CHARACTERS),
    "include": Texts(MAX_INCLUDES, MAX_NAME_CHARACTERS),
    "messages": _messages,
    "tools": Objects(MAX_TOOLS, MAX_TOOL_VALUES, MAX_TOOL_VALUES),
    "documents": Objects(MAX_DOCUMENTS, MAX_DOCUMENTS, 0),
    "previous_input_messages": _messages,
    "repetition_detection": Fields(dict.fromkeys(("min_pattern_size", "max_pattern_size", "min_count"), _pattern_size)),
}
"""Bounds by the name of a field; a field means the same in each of the APIs. Other fields count as values only."""


def request_problem(fields: dict[str, Any]) -> str | None:
    """What is wrong with the first part of a request that exceeds its bound; None if all are within theirs."""
    if problem := document_problem(fields):
        return f"The body {problem}."
    if problem := problem_in(fields, BOUNDS) or problem_in(fields, GRAMMAR_BOUNDS):
        return f"{problem}."
    return likelihoods_problem(fields)
