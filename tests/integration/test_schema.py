"""Whatever is sent to a real service, it answers in OpenAI's shape, names the request, and lives on.

HEADWAY_SCHEMA_EXAMPLES sets how many requests are made up for each operation.
"""

import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core import NotSet

from headway.serve.bounds.request_bounds import MAX_MESSAGE_ENTRIES, MAX_MESSAGES, MAX_TOOLS
from headway.serve.routes import ROUTES
from tests.integration.serving import ASK, NAME, Served

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("service")]

EXAMPLES = int(os.environ.get("HEADWAY_SCHEMA_EXAMPLES", "60"))
ANSWER_SECONDS = 60.0
"""A bound for hangs: an answer of the tiny model takes half a second at most, the first grammar some seconds."""
PAIRS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"max_tokens": 4},
    "/v1/chat/completions": {"max_tokens": 4},
    "/v1/responses": {"max_output_tokens": 4},
    "/tokenize": {},
    "/detokenize": {},
}
"""What takes a body, and what keeps its answers short."""
CLOSED: tuple[str, ...] = (
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/inference/v1/generate",
    "/invocations",
    "/v1/messages",
)
CLOSED += ("/generative_scoring", "/v1/responses/x", "/v1/responses/x/cancel", "/v1/completions/render", "/docs")
CLOSED += ("/sleep", "/wake_up", "/collective_rpc", "/start_profile", "/reset_prefix_cache", "/v1/load_lora_adapter")
CLOSED += ("/pause", "/resume", "/server_info", "/load", "/v1/nope", "/", "//v1/models", "/v1/models/", "/v1/%00")
"""What vLLM has, or would have with another setting, and what nobody has."""
NUMBERS: tuple[str, ...] = (
    "max_tokens",
    "n",
    "logprobs",
    "seed",
    "top_k",
    "min_tokens",
    "prompt_logprobs",
    "priority",
    "temperature",
)
NUMBERS += ("truncate_prompt_tokens", "thinking_token_budget", "repetition_penalty", "stop_token_ids", "best_of")
OTHERS: tuple[str, ...] = (
    "structured_outputs",
    "response_format",
    "stop",
    "logit_bias",
    "bad_words",
    "stream_options",
    "prompt",
)
OTHERS += (
    "kv_transfer_params",
    "repetition_detection",
    "allowed_token_ids",
    "user",
    "cache_salt",
    "request_id",
    "echo",
)
ODD = ("NaN", "-Infinity", "1e400", "1e308", "9" * 20, "9" * 5000, "-1", "0", "true", '"x"', "[]", "[[]]", "{}")
DEPTH = 10_000


def body(**changes: Any) -> bytes:
    """A completion's, with something else."""
    return json.dumps(ASK | changes).encode()


def written(field: str, value: str) -> bytes:
    """A completion's, with a field as it is written."""
    left = json.dumps({name: each for name, each in ASK.items() if name != field})
    return f'{left[:-1]}, "{field}": {value}}}'.encode()


GRAMMARS = {
    "an open regex": {"regex": "(((("},
    "a schema of nothing": {"json": {"$ref": "#/definitions/x"}},
    "a schema of no type": {"json": {"type": "nope"}},
    "no schema": {"json": "{"},
    "two at once": {"regex": "a", "choice": ["a"]},
    "no choice": {"choice": []},
    "ten million items": {"json": {"type": "array", "minItems": 10**7}},
    "ten million items as a text": {"json": json.dumps({"type": "array", "minItems": 10**7})},
    "ten million characters": {"json": {"type": "string", "minLength": 10**7}},
    "a million repetitions": {"regex": "a{1,1000000}"},
    "repetitions of a rule": {"grammar": 'root ::= "a"{1,1000000}'},
    "items within Lark": {"grammar": 'start: %json {"type": "array", "minItems": 10000000}'},
    "ten thousand choices": {"choice": [f"c{number}" for number in range(10_000)]},
    "a long choice": {"choice": ["a" * 10**5]},
    "no tag": {"structural_tag": "x"},
}
EMPTY: dict[str, Any] = {
    "a grammar without a rule": {"grammar": "root ::= "},
    "a schema of itself": {"json": {"$ref": "#"}},
}
"""Nothing can be said in them: the engine says so (400), or nothing (200)."""
MALFORMED: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "not JSON": (b"{", 400),
    "half": (body()[:-1], 400),
    "null": (b"null", 400),
    "a list": (b"[]", 400),
    "text": (b'"a"', 400),
    "two": (body() * 2, 400),
    "not UTF-8": (b'{"model": "tiny", "prompt": "\xff\xfe"}', 400),
    "half a character": (rb'{"model": "tiny", "prompt": "\ud800"}', 400),
    "half a character to stop at": (rb'{"model": "tiny", "prompt": "a", "stop": "\ud800"}', 400),
    "NUL": (body(prompt="a\0b"), 200),
    "NUL in a name": (body(model="a\0b"), 404),
    "ten MB": (body(prompt="a" * 10**7), 413),
    "too long": (body(prompt="a " * 10**6), 400),
    "no room for an answer": (body(max_tokens=10**6), 400),
    "no tokens": (body(max_tokens=-1), 400),
    "2^63": (body(max_tokens=2**63), 400),
    "2^63 - 1": (body(max_tokens=2**63 - 1), 400),
    "2^64 likeliest": (body(top_k=2**64), 400),
    "a billion answers": (body(n=10**9), 400),
    "a thousand answers": (body(n=1000), 400),
    "a million prompts": (body(prompt=["a"] * 10**6, max_tokens=1), 413),
    "half a million prompts": (body(prompt=["a"] * 500_000, max_tokens=1), 400),
    "a billion logprobs": (body(logprobs=10**9), 400),
    "a token out of the vocabulary": (body(prompt=[10**6]), 400),
    "a negative token": (body(prompt=[-1]), 400),
    "tokens and text": (body(prompt=[1, "a"]), 400),
    "no prompt": (body(prompt=[]), 400),
    "a number as a text": (body(n="2"), 400),
    "a large number as a text": (body(n="200"), 400),
    "a limit as a text": (body(max_tokens="4000"), 400),
    "a limit as a fraction": (body(max_tokens=4.0), 400),
    "a flag for a number": (body(n=True), 400),
    "a million and a number": (written("max_tokens", "1e400"), 400),
    "ten thousand biases": (body(logit_bias={str(number): 1 for number in range(10_000)}), 400),
    "a long id": (body(request_id="a" * 10**5), 400),
    "a long model": (body(model="a" * 10**5), 400),
    "ten thousand lists": (body(prompt=[[]] * 10_000), 400),
    "lists without end": (body(unknown=[[]] * 10**6), 400),
    "thousands to stop at": (body(stop=[f"x{number}" for number in range(5000)]), 400),
    "another model": (body(model="other"), 404),
    "no model": (body(model=5), 400),
    "deep": (b"[" * DEPTH, 400),
    "deep prompt": (written("prompt", "[" * DEPTH + "]" * DEPTH), 400),
    "deep and unknown": (written("unknown", '{"a":' * DEPTH + "1" + "}" * DEPTH), 400),
    "deep schema": (written("structured_outputs", '{"json":' * DEPTH + "{}" + "}" * DEPTH), 400),
    **{name: (body(structured_outputs=grammar), 400) for name, grammar in GRAMMARS.items()},
}
"""What is sent, and what it is answered."""


def check(answer: httpx.Response, what: object) -> None:
    """An answer that a client can work with."""
    assert answer.status_code < 500, (what, answer.text)
    assert answer.headers.get("X-Request-ID"), what
    if answer.is_error and answer.request.method != "HEAD":
        error = answer.json()["error"]
        assert error["message"], what
        assert error["type"], what
        assert error["code"], what


@pytest.fixture
def client(service: Served) -> Iterator[httpx.Client]:
    """A client of the service, whose requests must be answered within a bound."""
    with httpx.Client(base_url=service.url, timeout=ANSWER_SECONDS) as client:
        yield client


def post(client: httpx.Client, content: bytes, path: str = "/v1/completions") -> httpx.Response:
    """Send a body as it is."""
    return client.post(path, content=content, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_malformed_is_refused_in_words(client: httpx.Client, case: str) -> None:
    """With the status that it should have, whatever vLLM itself would make of it."""
    content, status = MALFORMED[case]
    answer = post(client, content)
    check(answer, case)
    assert answer.status_code == status, answer.text


def test_a_token_that_the_model_lacks_is_refused(service: Served, client: httpx.Client) -> None:
    """Wherever an id is sent, up to the first that the embedding has no row for; the engine and its streams live on."""
    rows = json.loads((Path(service.model) / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    for wrong in (rows, rows + 1, rows + 64, -1):
        for fields in (
            {"prompt": [wrong]},
            {"prompt": [1] * 20 + [wrong]},
            {"prompt": [[1], [1, wrong]]},
            {"stop_token_ids": [wrong]},
            {"allowed_token_ids": [1, wrong]},
            {"logprobs": 1, "logprob_token_ids": [wrong]},
            {"logit_bias": {str(wrong): 1}},
        ):
            answer = post(client, body(**fields))
            check(answer, fields)
            assert answer.status_code == 400, fields
            check(post(client, body(stream=True, **fields)), fields)
        assert post(client, body(prompt=[wrong], stream=True)).status_code == 400
    assert post(client, body(prompt=[0, rows - 1])).is_success
    assert not service.events("engine.died")


MESSAGE = {"role": "user", "content": "a"}
GROWING: dict[str, tuple[str, dict[str, Any]]] = {
    "empty messages": ("/v1/chat/completions", {"messages": [{}] * 10_000}),
    "many empty messages": ("/v1/chat/completions", {"messages": [{}] * 200_000}),
    "empty messages within bounds": ("/v1/chat/completions", {"messages": [{}] * MAX_MESSAGES}),
    "empty parts within bounds": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{}] * (MAX_MESSAGE_ENTRIES)}]},
    ),
    "odd parts within bounds": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}] * (MAX_MESSAGE_ENTRIES)}]},
    ),
    "empty calls within bounds": (
        "/v1/chat/completions",
        {"messages": [{"role": "assistant", "tool_calls": [{}] * (MAX_MESSAGE_ENTRIES)}]},
    ),
    "empty tools within bounds": ("/v1/chat/completions", {"messages": [MESSAGE], "tools": [{}] * MAX_TOOLS}),
    "empty items": ("/v1/responses", {"input": [{}] * 10_000}),
    "empty items within bounds": ("/v1/responses", {"input": [{}] * MAX_MESSAGES}),
    "odd contents within bounds": (
        "/v1/responses",
        {"input": [{"role": "user", "content": [1.5] * MAX_MESSAGE_ENTRIES}] * 15},
    ),
    "empty contents within bounds": (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{}] * (MAX_MESSAGE_ENTRIES)}]},
    ),
    "empty messages to tokenize": ("/tokenize", {"messages": [{}] * MAX_MESSAGES}),
    "an expression of paths": (
        "/v1/completions",
        {"prompt": "a", "structured_outputs": {"regex": "/a" * 30_000 + "("}},
    ),
    "words of paths": ("/v1/completions", {"prompt": "a", "bad_words": ["/a" * 128] * 127 + [""]}),
    "texts for tokens": ("/detokenize", {"tokens": ["a"] * 100_000}),
    "texts for ids": ("/v1/completions", {"prompt": "a", "stop_token_ids": ["a"] * 1000}),
}
"""What a model of vLLM's has many problems with."""


@pytest.mark.parametrize("case", GROWING)
def test_an_error_is_short(client: httpx.Client, case: str) -> None:
    """However many problems there are; nothing of what was sent is repeated."""
    path, fields = GROWING[case]
    content = json.dumps({"model": NAME} | fields).encode()
    answer = post(client, content, path)
    check(answer, case)
    assert answer.status_code in {400, 413}, answer.text
    assert len(answer.content) <= 15_000


MIN_ANSWERED = 10
"""Answers to others while a grammar is tried, which takes a quarter of a second at least; one if they had to wait."""


@pytest.mark.parametrize("expression", ["[a-z ]?" * 400, "(a|b)?" * 1000])
def test_others_do_not_wait_for_a_grammar(client: httpx.Client, expression: str) -> None:
    """It takes the engine's library more than it may: it is refused, and who asks meanwhile is answered."""
    answered = 0
    with ThreadPoolExecutor(1) as pool:
        grammar = pool.submit(post, client, body(structured_outputs={"regex": expression}))
        while not grammar.done():
            assert httpx.get(f"{client.base_url}/health", timeout=ANSWER_SECONDS).is_success
            answered += 1
    assert answered >= MIN_ANSWERED
    check(grammar.result(), expression[:20])
    assert post(client, body(structured_outputs={"regex": "a[bc]d"})).is_success


@pytest.mark.parametrize("field", [*NUMBERS, *OTHERS])
def test_no_value_of_a_field_is_the_services_fault(client: httpx.Client, field: str) -> None:
    """Numbers beyond all bounds, and what is no number, no list, no object."""
    for value in ODD:
        check(post(client, written(field, value)), (field, value[:32]))


@pytest.mark.parametrize("grammar", EMPTY)
def test_a_grammar_in_which_nothing_can_be_said_is_no_error_of_ours(client: httpx.Client, grammar: str) -> None:
    """Nor as a stream, which may have begun before the engine knows: its last event says it."""
    check(post(client, body(structured_outputs=EMPTY[grammar])), grammar)
    answer = post(client, body(stream=True, structured_outputs=EMPTY[grammar]))
    if answer.is_success:
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        assert events[-1] == "[DONE]"
        codes = {event["error"]["code"] for event in map(json.loads, events[:-1]) if "error" in event}
        assert codes <= {400}
    else:
        assert answer.status_code == 400


def test_what_takes_long_to_count_is_refused(client: httpx.Client) -> None:
    """The tokens of one text at a time are counted, and prompts would wait for it."""
    answer = post(client, json.dumps({"model": NAME, "prompt": "a " * 200_000}).encode(), "/tokenize")
    check(answer, "/tokenize")
    assert answer.status_code == 413


@pytest.mark.parametrize("path", CLOSED)
def test_what_is_not_offered_does_not_exist(client: httpx.Client, path: str) -> None:
    """Whoever asks, and however: what only an operator may do, and what is nowhere."""
    for method in ("GET", "POST", "DELETE"):
        answer = client.request(method, path, json={} if method == "POST" else None)
        check(answer, path)
        assert answer.status_code == 404


def test_another_method_is_refused_with_those_there_are(client: httpx.Client) -> None:
    """405, in the same shape."""
    for path, route in ROUTES.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "OPTIONS"} - {route.method}:
            answer = client.request(method, path)
            check(answer, (method, path))
            assert (answer.status_code, answer.headers["Allow"]) == (405, route.method)


def test_what_is_no_http_is_refused(service: Served) -> None:
    """By the HTTP parser, before there is a request: a line of text and the end of the connection."""
    for sent in (
        b"\0\xff\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * 10**6 + b"\r\n",
    ):
        with socket.create_connection(("127.0.0.1", service.port), timeout=ANSWER_SECONDS) as raw:
            with suppress(ConnectionError):  # it does not read to the end of what is absurdly long
                raw.sendall(sent)
            with suppress(ConnectionError):
                assert raw.recv(64).startswith((b"HTTP/1.1 400", b""))


@pytest.mark.parametrize("path", [path for path, route in ROUTES.items() if route.method == "GET"])
def test_what_machines_ask_is_answered(client: httpx.Client, path: str) -> None:
    """Whatever they send with it."""
    for query in ("", "?a=b&a=%00", "?" + "a" * 5000):
        answer = client.get(path + query)
        check(answer, path)
        assert answer.is_success


@pytest.mark.parametrize("path", PAIRS)
def test_what_is_made_up_is_answered(client: httpx.Client, path: str) -> None:
    """Requests that the schema allows, and such that it does not, as schemathesis makes them up."""
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    operation = schema[path]["POST"]
    modes = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(modes))
    def send(case: schemathesis.Case[Any]) -> None:
        made: Any = {} if isinstance(case.body, NotSet) else case.body
        if isinstance(made, dict):  # what does not name the model is refused before anything else is looked at
            made = made | {"model": NAME} | PAIRS[path]
        check(post(client, made if isinstance(made, bytes) else json.dumps(made).encode(), path), made)

    send()
