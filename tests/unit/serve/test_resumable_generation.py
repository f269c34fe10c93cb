"""What was answered so far, with vLLM's own requests and answers; the engines are played by the test."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from headway.serve.resumable_generation import ResumableGeneration

PROMPT = [1, 2, 3]
ANSWER = list(range(100, 130))


def text(tokens: list[int]) -> str:
    """What an engine says for these: some say nothing, some several letters."""
    return "".join(chr(97 + token % 26) * (token % 3) for token in tokens)


def params(**other: Any) -> SamplingParams:
    """Of a stream, greedy by default."""
    return SamplingParams(**{"temperature": 0, "max_tokens": 30, "output_kind": RequestOutputKind.DELTA, **other})


def piece(prompt: list[int], tokens: list[int], *, says: str | None = None, finished: bool = False) -> RequestOutput:
    """What an engine passes on at once."""
    said = CompletionOutput(
        0, text(tokens) if says is None else says, tokens, None, [{token: Logprob(0.0)} for token in tokens]
    )
    return RequestOutput("x", None, prompt, None, [said], finished)


def cut(tokens: list[int], sizes: list[int]) -> list[list[int]]:
    """In pieces of these sizes, the last one as long as it takes."""
    pieces = []
    for size in sizes:
        if len(tokens) > size:
            pieces.append(tokens[:size])
            tokens = tokens[size:]
    return [*pieces, tokens]


SIZES = st.lists(st.integers(1, 7), max_size=12)
WAYS = {"goes on": params(), "again": params(stop=["!"]), "seed": params(temperature=1.0, seed=3)}


@pytest.mark.parametrize("way", WAYS)
@given(first=SIZES, second=SIZES, heard=st.integers(0, 12))
def test_two_engines_say_what_one_would_have_said(way: str, first: list[int], second: list[int], heard: int) -> None:
    """However each cuts its answer, and wherever the first one dies: tokens, text and logarithms, and the prompt."""
    transcript = ResumableGeneration({"type": "token", "prompt_token_ids": PROMPT}, WAYS[way])
    taken = [transcript.take(piece(PROMPT, tokens)) for tokens in cut(ANSWER, first)[:-1][:heard]]
    assert transcript.go_on()
    asked = transcript.prompt["prompt_token_ids"]
    rest = ANSWER[len(asked) - len(PROMPT) :]
    assert transcript.params.max_tokens == len(rest)
    assert way == "goes on" or rest == ANSWER
    pieces = cut(rest, second)
    taken += [
        transcript.take(piece(asked, tokens, finished=number == len(pieces) - 1))
        for number, tokens in enumerate(pieces)
    ]
    passed = [each for each in taken if each is not None]
    assert [token for each in passed for token in each.outputs[0].token_ids] == ANSWER
    assert "".join(each.outputs[0].text for each in passed) == text(ANSWER)
    assert [token for each in passed for entry in each.outputs[0].logprobs or [] for token in entry] == ANSWER
    assert all(each.prompt_token_ids == PROMPT for each in passed)
    assert passed[-1].finished


def test_an_answer_that_comes_otherwise_is_not_gone_on_with() -> None:
    """What was said cannot be taken back."""
    transcript = ResumableGeneration({"prompt_token_ids": PROMPT}, params(stop=["!"]))
    transcript.take(piece(PROMPT, [5, 6]))
    assert transcript.go_on()
    with pytest.raises(RuntimeError, match="answers otherwise"):
        transcript.take(piece(PROMPT, [5, 7]))


def test_text_that_comes_later_than_its_tokens_is_passed_on_once() -> None:
    """Engines hold it back while it may be the beginning of a stop string."""
    transcript = ResumableGeneration({"prompt_token_ids": PROMPT}, params(stop=["!"]))
    transcript.take(piece(PROMPT, [5, 6], says="ab"))
    assert transcript.go_on()
    assert transcript.take(piece(PROMPT, [5, 6], says="a")) is None
    rest = transcript.take(piece(PROMPT, [7], says="bc"))
    assert rest
    assert (rest.outputs[0].text, rest.outputs[0].token_ids) == ("c", [7])


def test_an_end_is_passed_on_though_all_before_it_was_said() -> None:
    """An engine may die between its last token and its end."""
    transcript = ResumableGeneration({"prompt_token_ids": PROMPT}, params(stop=["!"]))
    transcript.take(piece(PROMPT, [5, 6]))
    assert transcript.go_on()
    end = transcript.take(piece(PROMPT, [5, 6], finished=True))
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
def test_what_cannot_be_had_again_ends(other: dict[str, Any]) -> None:
    """Unless nothing of it was said yet."""
    transcript = ResumableGeneration({"prompt_token_ids": PROMPT}, params(**other))
    assert transcript.go_on()
    transcript.take(piece(PROMPT, [5]))
    assert not transcript.go_on()


def test_least_and_most_tokens_are_those_of_the_whole_answer() -> None:
    """What was said counts for both."""
    transcript = ResumableGeneration({"prompt_token_ids": PROMPT}, params(max_tokens=10, min_tokens=4))
    transcript.take(piece(PROMPT, [5, 6, 7]))
    assert transcript.go_on()
    assert (transcript.params.max_tokens, transcript.params.min_tokens) == (7, 1)
    transcript.take(piece(PROMPT, [8, 9, 10]))
    assert transcript.go_on()
    assert (transcript.params.max_tokens, transcript.params.min_tokens) == (4, 0)
    assert transcript.prompt["prompt_token_ids"] == [*PROMPT, 5, 6, 7, 8, 9, 10]
