"""What an application does with an OpenAI client and a model that can chat."""

from typing import Any

import openai
import pytest

from tests.integration.serving import NAME, Served

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]

ASK: dict[str, Any] = {"model": NAME, "temperature": 0, "max_tokens": 12}
MESSAGES = [{"role": "system", "content": "You write Python."}, {"role": "user", "content": "Read a file."}]
RENDERED = "# system: You write Python.\n# user: Read a file.\n# assistant: "


@pytest.fixture
def client(service: Served) -> openai.OpenAI:
    """As an application has it."""
    return service.client


def schema(of: dict[str, Any]) -> dict[str, Any]:
    """The response format that asks for it."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": of}}


def test_a_conversation_is_what_its_template_makes_of_it(client: Any) -> None:
    """The same tokens in and the same text out as a completion of the rendered text."""
    chat = client.chat.completions.create(**ASK, messages=MESSAGES)
    plain = client.completions.create(**ASK, prompt=RENDERED)
    assert chat.choices[0].message.role == "assistant"
    assert chat.choices[0].message.content == plain.choices[0].text
    assert chat.usage.prompt_tokens == plain.usage.prompt_tokens


def test_a_conversation_is_streamed(client: Any) -> None:
    """Its pieces are what the whole answer is, by both of OpenAI's APIs."""
    whole = client.chat.completions.create(**ASK, messages=MESSAGES).choices[0].message.content
    pieces = client.chat.completions.create(**ASK, messages=MESSAGES, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole
    request = {"model": NAME, "temperature": 0, "max_output_tokens": 12, "instructions": "You write Python."}
    answer = client.responses.create(**request, input="Read a file.")
    assert answer.output_text == whole


@pytest.mark.parametrize(
    ("grammar", "answers"),
    [
        ({"response_format": schema({"enum": ["file", "folder"]})}, {'"file"', '"folder"'}),
        ({"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}}, {"yes", "no"}),
        ({"extra_body": {"structured_outputs": {"regex": "a[bc]d"}}}, {"abd", "acd"}),
    ],
    ids=["a schema", "a choice", "an expression"],
)
def test_an_answer_follows_a_grammar(client: Any, grammar: dict[str, Any], answers: set[str]) -> None:
    """Whatever the model would rather say."""
    answer = client.chat.completions.create(**ASK, messages=MESSAGES, **grammar).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.message.content in answers


def test_an_answer_stops_where_it_is_to(client: Any) -> None:
    """Before the word, which it would have said."""
    whole = client.completions.create(**ASK, prompt="def read").choices[0].text
    word = whole[len(whole) // 2 :][:2]
    answer = client.completions.create(**ASK, prompt="def read", stop=[word]).choices[0]
    assert (answer.text, answer.finish_reason) == (whole[: whole.index(word)], "stop")


def test_how_likely_each_token_was_is_told(client: Any) -> None:
    """Of the tokens of the answer, the likeliest first; a greedy answer has those."""
    request = {**ASK, "messages": MESSAGES, "logprobs": True, "top_logprobs": 3}
    answer = client.chat.completions.create(**request).choices[0]
    assert len(answer.logprobs.content) == ASK["max_tokens"]
    for token in answer.logprobs.content:
        assert token.logprob == token.top_logprobs[0].logprob <= 0
        assert token.top_logprobs == sorted(token.top_logprobs, key=lambda each: -each.logprob)
