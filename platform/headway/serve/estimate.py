"""How many tokens a request may come to, told from its body before anything is computed: too many rather than too few.

It is settled by what was really used, so that it only has to be of the right size.
"""

from typing import Any

from pydantic_core import from_json

BYTES_PER_TOKEN = 4
"""Of a body, for its prompt: about what English and code take; what goes with it (names, quotes) is in it, too."""
ANSWER_TOKENS = 256
"""What an answer is taken for whose request does not say how long it may be [tokens]."""
LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""By which of these it says so, in the order in which they count."""


def estimate(body: bytes) -> int:
    """Tokens of the prompts and of all the answers that a request may get.

    What is no JSON, or not of the shape that it should have, counts by its size: the engine says what is wrong.
    """
    try:
        asked = from_json(body)
    except ValueError:
        asked = None
    prompt = -(-len(body) // BYTES_PER_TOKEN)
    return prompt + (answers(asked) if isinstance(asked, dict) else ANSWER_TOKENS)


def answers(asked: dict[str, Any]) -> int:
    """Tokens of all answers together."""
    longest = next((found for name in LIMITS if (found := _count(asked.get(name)))), ANSWER_TOKENS)
    return longest * choices(asked)


def choices(asked: dict[str, Any]) -> int:
    """How many answers."""
    return (_count(asked.get("n")) or 1) * _prompts(asked)


def _prompts(asked: dict[str, Any]) -> int:
    """How many prompts are answered: a list of texts, of lists of tokens, or of conversations is several."""
    for several in (asked.get("prompt"), asked.get("messages")):
        if isinstance(several, list) and several and isinstance(several[0], (str, list)):
            return len(several)
    return 1


def _count(value: object) -> int:
    """A number that counts something; 0 if it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
