"""Resumable generation with vLLM's own parameters and outputs; the test plays the engines."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from headway.serve.engine.resumable_generation import ResumableGeneration

pytestmark = pytest.mark.xdist_group("vllm")

PROMPT = [1, 2, 3]
OUTPUT = list(range(100, 130))


def text(tokens: list[int]) -> str:
    """Text of these tokens: some have none, some have several letters."""
    return "".join(chr(97 + token % 26) * (token % 3) for token in tokens)


def params(**other: Any) -> SamplingParams:
    """Parameters of a stream; greedy by default."""
    return SamplingParams(**{"temperature": 0, "max_tokens": 30, "output_kind": RequestOutputKind.DELTA, **other})


def piece(
    prompt: list[int], tokens: list[int], *, piece_text: str | None = None, finished: bool = False
) -> RequestOutput:
    """One output of an engine."""
    choice = CompletionOutput(
        0, text(tokens) if piece_text is None else piece_text, tokens, None, [{token: Logprob(0.0)} for token in tokens]
    )
    return RequestOutput("x", None, prompt, None, [choice], finished)


def cut(tokens: list[int], sizes: list[int]) -> list[list[int]]:
    """Cut tokens into pieces of these sizes; the last piece takes the rest."""
    pieces = []
    for size in sizes:
        if len(tokens) > size:
            pieces.append(tokens[:size])
            tokens = tokens[size:]
    return [*pieces, tokens]


SIZES = st.lists(st.integers(1, 7), max_size=12)
METHODS = {"extended prompt": params(), "repeated": params(stop=["!"]), "seed": params(temperature=1.0, seed=3)}


@pytest.mark.parametrize("method", METHODS)
@given(first=SIZES, second=SIZES, forwarded_count=st.integers(0, 12))
def test_two_engines_give_the_output_of_one(
    method: str, first: list[int], second: list[int], forwarded_count: int
) -> None:
    """Tokens, text, logprobs and prompt are the same, wherever the first engine dies and however each cuts."""
    generation = ResumableGeneration({"type": "token", "prompt_token_ids": PROMPT}, METHODS[method])
    outputs = [generation.advance(piece(PROMPT, tokens)) for tokens in cut(OUTPUT, first)[:-1][:forwarded_count]]
    assert generation.prepare_resume()
    next_prompt = generation.prompt["prompt_token_ids"]
    rest = OUTPUT[len(next_prompt) - len(PROMPT) :]
    assert generation.params.max_tokens == len(rest)
    assert method == "extended prompt" or rest == OUTPUT
    pieces = cut(rest, second)
    outputs += [
        generation.advance(piece(next_prompt, tokens, finished=number == len(pieces) - 1))
        for number, tokens in enumerate(pieces)
    ]
    forwarded = [each for each in outputs if each is not None]
    assert [token for each in forwarded for token in each.outputs[0].token_ids] == OUTPUT
    assert "".join(each.outputs[0].text for each in forwarded) == text(OUTPUT)
    assert [token for each in forwarded for entry in each.outputs[0].logprobs or [] for token in entry] == OUTPUT
    assert all(each.prompt_token_ids == PROMPT for each in forwarded)
    assert forwarded[-1].finished


def test_other_tokens_than_before_are_an_error() -> None:
    """What the client has received cannot be outputs back."""
    generation = ResumableGeneration({"prompt_token_ids": PROMPT}, params(stop=["!"]))
    generation.advance(piece(PROMPT, [5, 6]))
    assert generation.prepare_resume()
    with pytest.raises(RuntimeError, match="generates other tokens"):
        generation.advance(piece(PROMPT, [5, 7]))


def test_text_that_comes_after_its_tokens_is_forwarded_once() -> None:
    """Engines hold text back while it may start a stop string."""
    generation = ResumableGeneration({"prompt_token_ids": PROMPT}, params(stop=["!"]))
    generation.advance(piece(PROMPT, [5, 6], piece_text="ab"))
    assert generation.prepare_resume()
    assert generation.advance(piece(PROMPT, [5, 6], piece_text="a")) is None
    rest = generation.advance(piece(PROMPT, [7], piece_text="bc"))
    assert rest
    assert (rest.outputs[0].text, rest.outputs[0].token_ids) == ("c", [7])


def test_an_end_is_forwarded_when_all_tokens_were_before() -> None:
    """An engine may die between its last token and the end of its output."""
    generation = ResumableGeneration({"prompt_token_ids": PROMPT}, params(stop=["!"]))
    generation.advance(piece(PROMPT, [5, 6]))
    assert generation.prepare_resume()
    end = generation.advance(piece(PROMPT, [5, 6], finished=True))
    assert end
    assert (end.finished, end.outputs[0].text, end.outputs[0].token_ids) == (True, "", [])


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 1.0, "stop": ["!"]},
        {"temperature": 1.0, "presence_penalty": 1.0},
        {"temperature": 1.0, "n": 2},
        {"temperature": 1.0, "output_kind": RequestOutputKind.CUMULATIVE, "n": 2},
    ],
)
def test_an_output_that_no_engine_can_repeat_is_not_resumed(other: dict[str, Any]) -> None:
    """It can start again only while nothing was forwarded."""
    generation = ResumableGeneration({"prompt_token_ids": PROMPT}, params(**other))
    assert generation.prepare_resume()
    generation.advance(piece(PROMPT, [5]))
    assert not generation.prepare_resume()


def test_token_limits_hold_for_the_whole_output() -> None:
    """The tokens forwarded before count for both limits."""
    generation = ResumableGeneration({"prompt_token_ids": PROMPT}, params(max_tokens=10, min_tokens=4))
    generation.advance(piece(PROMPT, [5, 6, 7]))
    assert generation.prepare_resume()
    assert (generation.params.max_tokens, generation.params.min_tokens) == (7, 1)
    generation.advance(piece(PROMPT, [8, 9, 10]))
    assert generation.prepare_resume()
    assert (generation.params.max_tokens, generation.params.min_tokens) == (4, 0)
    assert generation.prompt["prompt_token_ids"] == [*PROMPT, 5, 6, 7, 8, 9, 10]
