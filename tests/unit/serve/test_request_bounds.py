"""Bounds of requests: for each, what is just within it passes, and one more is refused in OpenAI's shape."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from tests.unit.serve.replicas import behind, config

from headway.serve.bounds import document_bounds, grammar_bounds, likelihood_bounds, request_bounds
from headway.serve.bounds.field_bounds import MAX_TOKEN_ID, integer, number
from headway.serve.bounds.request_bounds import BOUNDS, request_problem
from headway.serve.memory_budget import MemoryBudget
from headway.serve.middleware.buffering import Buffering
from headway.serve.middleware.http_middleware import HttpMiddleware
from headway.serve.middleware.validation import Validation
from headway.serve.request_body import RequestBody
from headway.serve.request_context import context_of
from headway.serve.routes import ROUTES
from headway.serve.tenants.estimate import count_choices, estimate_tokens

MESSAGE = {"role": "user", "content": "a"}
MAX_RESPONSE_BYTES = 1000
"""A refusal names one problem, and nothing of what was sent."""


async def accept(scope: Scope, _: Receive, send: Send) -> None:
    """Respond, whatever the request is."""
    await JSONResponse({})(scope, _, send)


CLIENT = TestClient(
    behind(
        accept,
        Middleware(Buffering, config=config(), budget=MemoryBudget(2**30)),
        Middleware(Validation, max_choices=2000),
    )
)
"""A client of what accepts everything that passes validation."""
BODIES = [path for path, route in ROUTES.items() if route.takes_body]


def nested(depth: int, innermost: Any = 1) -> Any:
    """A value with so many lists in each other."""
    for _ in range(depth):
        innermost = [innermost]
    return innermost


def schema(**keywords: Any) -> dict[str, Any]:
    """Fields of a request for an answer that follows a schema."""
    return {"structured_outputs": {"json": {"type": "array", **keywords}}}


def tool(**keywords: Any) -> dict[str, Any]:
    """A tool whose parameters follow a schema."""
    return {"type": "function", "function": {"name": "a", "parameters": {"type": "object", **keywords}}}


def properties(count: int) -> dict[str, Any]:
    """The properties of a schema."""
    return {f"p{index}": {} for index in range(count)}


COUNTED: dict[str, tuple[int, Callable[[int], dict[str, Any]]]] = {
    "depth": (document_bounds.MAX_DEPTH, lambda size: {"unknown": nested(size - 2, {})}),
    "values": (document_bounds.MAX_VALUES, lambda size: {"unknown": [None] * (size - 2)}),
    "integers": (document_bounds.MAX_INTEGERS, lambda size: {"unknown": [[1] * size]}),
    "integers of all lists": (document_bounds.MAX_INTEGERS, lambda size: {"unknown": [[1] * 9, [1] * (size - 9)]}),
    "prompts": (request_bounds.MAX_PROMPTS, lambda size: {"prompt": ["a"] * size}),
    "inputs": (request_bounds.MAX_PROMPTS, lambda size: {"input": ["a"] * size}),
    "lists of token ids": (request_bounds.MAX_PROMPTS, lambda size: {"prompt": [[1]] * size}),
    "token ids of a prompt": (request_bounds.MAX_TOKEN_IDS, lambda size: {"prompt": [1] * size}),
    "token ids of prompts": (request_bounds.MAX_TOKEN_IDS, lambda size: {"prompt": [[1] * (size - 1), [1]]}),
    "token ids": (request_bounds.MAX_TOKEN_IDS, lambda size: {"tokens": [1] * size}),
    "allowed tokens": (request_bounds.MAX_TOKEN_IDS, lambda size: {"allowed_token_ids": [1] * size}),
    "stop tokens": (request_bounds.MAX_STOP_TOKEN_IDS, lambda size: {"stop_token_ids": [1] * size}),
    "logprob tokens": (request_bounds.MAX_LOGPROB_TOKEN_IDS, lambda size: {"logprob_token_ids": [1] * size}),
    "largest token id": (MAX_TOKEN_ID, lambda size: {"prompt": [0, size]}),
    "largest id of a list": (MAX_TOKEN_ID, lambda size: {"prompt": [[1], [0, size]]}),
    "largest stop token": (MAX_TOKEN_ID, lambda size: {"stop_token_ids": [size]}),
    "biases": (request_bounds.MAX_BIASES, lambda size: {"logit_bias": {str(key): 1.5 for key in range(size)}}),
    "stop texts": (request_bounds.MAX_STOP_TEXTS, lambda size: {"stop": ["a"] * size}),
    "a stop text": (request_bounds.MAX_STOP_CHARACTERS, lambda size: {"stop": "a" * size}),
    "one of the stop texts": (request_bounds.MAX_STOP_CHARACTERS, lambda size: {"stop": ["a", "a" * size]}),
    "bad words": (request_bounds.MAX_BAD_WORDS, lambda size: {"bad_words": ["a"] * size}),
    "a bad word": (request_bounds.MAX_WORD_CHARACTERS, lambda size: {"bad_words": ["a" * size]}),
    "a name": (request_bounds.MAX_NAME_CHARACTERS, lambda size: {"request_id": "a" * size}),
    "a model": (request_bounds.MAX_NAME_CHARACTERS, lambda size: {"model": "a" * size}),
    "messages": (request_bounds.MAX_MESSAGES, lambda size: {"messages": [MESSAGE] * size}),
    "empty messages": (request_bounds.MAX_MESSAGES, lambda size: {"messages": [{}] * size}),
    "items": (request_bounds.MAX_MESSAGES, lambda size: {"input": [MESSAGE] * size}),
    "parts": (
        request_bounds.MAX_MESSAGE_ENTRIES,
        lambda size: {"messages": [{"role": "user", "content": [1.5] * size}]},
    ),
    "parts of all messages": (
        request_bounds.MAX_MESSAGE_VALUES - 20 * 202,
        lambda size: {"input": [{"content": [{}] * 200}] * 20 + [{}] * size},
    ),
    "tools": (request_bounds.MAX_TOOLS, lambda size: {"tools": [tool()] * size}),
    "documents": (request_bounds.MAX_DOCUMENTS, lambda size: {"documents": [{"a": "b"}] * size}),
    "a repeated pattern": (
        request_bounds.MAX_PATTERN,
        lambda size: {"repetition_detection": {"max_pattern_size": size, "min_count": 2}},
    ),
    "counts of a pattern": (request_bounds.MAX_PATTERN, lambda size: {"repetition_detection": {"min_count": size}}),
    "items of an array": (grammar_bounds.MAX_REPETITIONS, lambda size: schema(minItems=size)),
    "items of arrays": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: schema(items={"minItems": size // 2, "maxItems": size - size // 2}),
    ),
    "items, written as a fraction": (grammar_bounds.MAX_REPETITIONS, lambda size: schema(maxItems=float(size))),
    "characters of a text": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: schema(items={"maxLength": size * grammar_bounds.CHARACTERS_PER_REPETITION}),
    ),
    "a schema as a text": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"structured_outputs": {"json": json.dumps({"minItems": size})}},
    ),
    "a schema as a response format": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"response_format": {"type": "json_schema", "json_schema": {"schema": {"minItems": size}}}},
    ),
    "a schema as a format of a text": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"text": {"format": {"type": "json_schema", "schema": {"minItems": size}}}},
    ),
    "a schema of a tool": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"tools": [tool(), tool(properties={"a": {"minItems": size}})]},
    ),
    "a tag": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"structured_outputs": {"structural_tag": json.dumps({"format": {"max": size}})}},
    ),
    "a tag as a response format": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"response_format": {"format": {"elements": [{"pattern": f"a{{{size}}}"}]}}},
    ),
    "an expression": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"structured_outputs": {"regex": f"a{{1,{size - 2}}}b{{2}}"}},
    ),
    "an open expression": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"structured_outputs": {"regex": f"a{{ {size} , }}"}},
    ),
    "an EBNF grammar": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"structured_outputs": {"grammar": f'root ::= "a"{{,{size}}}'}},
    ),
    "a Lark grammar": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: {"structured_outputs": {"grammar": f'start: "a" ~ 1 .. {size}'}},
    ),
    "an expression of a property": (
        grammar_bounds.MAX_REPETITIONS,
        lambda size: schema(items={"patternProperties": {f"a{{{size}}}": {}}}),
    ),
    "properties": (
        grammar_bounds.MAX_REPETITIONS // (100 * grammar_bounds.PROPERTY_REPETITIONS + 1),
        lambda size: {
            "structured_outputs": {
                "json": {"minProperties": 0, "maxProperties": size} | {"properties": properties(100)}
            }
        },
    ),
    "likelihoods of an answer": (
        likelihood_bounds.MAX_LIKELIHOODS // 8 // 6,
        lambda size: {"logprobs": 5, "n": 8, "max_tokens": size},
    ),
    "likelihoods of answers": (
        likelihood_bounds.MAX_LIKELIHOODS // 8 // 6,
        lambda size: {"logprobs": True, "top_logprobs": 5, "n": 2, "prompt": ["a"] * 4, "max_completion_tokens": size},
    ),
    "likelihoods of an echoed text": (
        likelihood_bounds.MAX_LIKELIHOODS // 8 // 6,
        lambda size: {"logprobs": 5, "n": 8, "prompt": "a" * size, "echo": True},
    ),
    "likelihoods of a prompt": (
        likelihood_bounds.MAX_LIKELIHOODS // 4,
        lambda size: {"prompt_logprobs": 3, "prompt": [1] * size},
    ),
    "likelihoods of a conversation": (
        likelihood_bounds.MAX_LIKELIHOODS // 2 - len("user") - 1,
        lambda size: {"prompt_logprobs": 1, "messages": [{"role": "user", "content": "a" * size}]},
    ),
    "choices": (grammar_bounds.MAX_VALUES - 2, lambda size: {"structured_outputs": {"choice": ["a"] * size}}),
    "an enumeration": (
        grammar_bounds.MAX_VALUES - 3,
        lambda size: {"structured_outputs": {"json": {"enum": [1.5] * size}}},
    ),
    "characters of a grammar": (
        grammar_bounds.MAX_CHARACTERS - len("grammar"),
        lambda size: {"structured_outputs": {"grammar": "a" * size}},
    ),
    "characters of tools": (
        grammar_bounds.MAX_TOOL_CHARACTERS - len("a"),
        lambda size: {"tools": [{"a": "b" * size}]},
    ),
}
"""Bounds of sizes: the largest that passes, and the request of a size."""


@pytest.mark.parametrize("name", COUNTED)
def test_one_more_is_too_many(name: str) -> None:
    """A refusal is short, and repeats nothing."""
    size, fields = COUNTED[name]
    within, beyond = (json.dumps(fields(count)) for count in (size, size + 1))
    accepted = CLIENT.post("/v1/completions", content=within)
    assert accepted.status_code == 200, accepted.text
    require_refusal(CLIENT.post("/v1/completions", content=beyond))


@pytest.mark.parametrize("path", BODIES)
def test_bounds_hold_on_each_route(path: str) -> None:
    """Whatever has a body is checked by one table."""
    cases: list[dict[str, Any]] = [{"messages": [{}] * 10_000}, {"n": "1"}, schema(minItems=10**7), {"prompt": [-1]}]
    for fields in cases:
        require_refusal(CLIENT.post(path, json=fields))


def require_refusal(response: Any) -> None:
    """Check that a response is a refusal in OpenAI's shape, and that it is short."""
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_body", None)
    assert len(response.content) <= MAX_RESPONSE_BYTES


@pytest.mark.parametrize("text", ["{", "{ ", "{ ,", "{1", "{1,", "~", "~ ", "~1", "~1..", "~ 1 . "])
def test_an_expression_is_measured_in_one_pass(text: str) -> None:
    """However it begins to look like a number of repetitions."""
    start = time.process_time()
    for expression in (text * 6000, text + " " * 60_000, text[:1] + " " * 60_000, text + "1" * 60_000):
        request_problem({"structured_outputs": {"regex": expression}})
    assert time.process_time() - start < 1


def test_a_range_costs_its_digits() -> None:
    """However it is written."""
    limit = grammar_bounds.MAX_REPETITIONS // grammar_bounds.DIGIT_REPETITIONS
    for keyword in grammar_bounds.RANGES:
        for value, count in ((10**9, limit // 10), (1e300, limit // 301), (1e-300, limit // 302), (0.5, limit // 3)):
            for repeats, is_within in ((count, True), (count + 1, False)):
                fields = schema(anyOf=[{keyword: value} for _ in range(repeats)])
                assert (request_problem(fields) is None) is is_within, (keyword, value, repeats)


INTEGERS = [name for name, bound in BOUNDS.items() if bound is integer]
NUMBERS = [name for name, bound in BOUNDS.items() if bound is number]


def test_limits_are_in_the_table() -> None:
    """Nothing that quotas or the limit on choices judge is missing in it."""
    assert {"n", "max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens"} <= set(INTEGERS)
    assert {"temperature", "top_p"} <= set(NUMBERS)


@pytest.mark.parametrize("value", ["200", " 200 ", "2_00", "1e3", 200.0, 2.5, True, [1], {}, "", [200]])
@pytest.mark.parametrize("field", INTEGERS)
def test_an_integer_is_written_as_one(field: str, value: object) -> None:
    """The engine would make an integer of some of them after the limits have judged them to be none."""
    assert request_problem({field: value}) == f"{field} must be an integer."
    assert request_problem({field: 200}) is None
    assert request_problem({field: None}) is None


@pytest.mark.parametrize("value", ["0.5", "nan", "inf", True, [1.0], {}])
@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_is_written_as_one(field: str, value: object) -> None:
    """The same holds for numbers of any kind."""
    assert request_problem({field: value}) == f"{field} must be a number."
    assert request_problem({field: 0.5}) is request_problem({field: 1}) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [-1]},
        {"prompt": [[1], [2, -1]]},
        {"prompt": [1, "a"]},
        {"prompt": [True]},
        {"prompt": ["a", [1]]},
        {"prompt": [[1], ["a"]]},
        {"prompt": [1.0]},
        {"prompt": {"a": 1}},
        {"prompt": 5},
        {"input": [1, {}]},
        {"tokens": "1"},
        {"tokens": ["1"]},
        {"stop_token_ids": ["1"]},
        {"allowed_token_ids": [-1]},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"a": 1}},
        {"logit_bias": {"1" * 11: 1}},
        {"logit_bias": {"1": "1"}},
        {"logit_bias": {"1": True}},
        {"logit_bias": [1]},
        {"stop": [1]},
        {"stop": {"a": 1}},
        {"messages": {"a": 1}},
        {"messages": ["a"]},
        {"messages": [MESSAGE, []]},
        {"tools": [1]},
        {"model": 5},
        {"repetition_detection": [1]},
        {"repetition_detection": {"min_count": "2"}},
        {"structured_outputs": "a"},
        {"structured_outputs": {"json": "{"}},
        {"structured_outputs": {"structural_tag": "x"}},
        {"structured_outputs": {"json": "[" * 65 + "]" * 65}},
        {"structured_outputs": {"json": '{"minItems": ' + "9" * 400 + "}"}},
        {"structured_outputs": {"regex": "a{" + "9" * 400 + "}"}},
        {"structured_outputs": {"regex": "a{1," + "9" * 5000 + "}"}},
    ],
)
def test_a_value_of_another_kind_is_refused(fields: dict[str, Any]) -> None:
    """Models of the engine would report each of its entries."""
    assert request_problem(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": ""},
        {"prompt": []},
        {"prompt": "a" * 10**6},
        {"logprobs": True, "top_logprobs": 5},
        {"logprobs": 5},
        {"messages": [MESSAGE, {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 10}] * 100},
        {"input": "a"},
        {"tools": [tool(properties=properties(50), description="d" * 1000)] * 50},
        {
            "structured_outputs": {
                "json": {"properties": {"minItems": {"type": "integer"}, "pattern": {"type": "string"}}}
            }
        },
        {"structured_outputs": {"regex": r"\d{4}-\d{2}-\d{2}"}},
        {"structured_outputs": {"choice": ["yes", "no"]}},
        {"response_format": {"type": "json_object"}},
        schema(items={"type": "string", "maxLength": 100_000}),
        schema(description="at most {100000} of them"),
    ],
)
def test_what_clients_really_send_passes(fields: dict[str, Any]) -> None:
    """Bounds are for what nobody needs."""
    assert request_problem(fields) is None


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.sampled_from([0, 1, 128, 129, 1024, 2**31, 2**63, 10**7, 1e308, 0.5]),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from(["200", "4000", "1e9", " 7 ", "a{1,1000000}", "[", "{}", '{"minItems": 1e9}']),
)
KEYS = st.one_of(
    st.sampled_from([*BOUNDS, *grammar_bounds.GRAMMAR_BOUNDS]),
    st.sampled_from(["json", "regex", "choice", "grammar", "minItems", "maxLength", "pattern", "properties", "min"]),
    st.text(max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=4),
        st.builds(lambda item, depth: nested(depth, item), inner, st.sampled_from([1, 10, 63, 64, 70])),
    ),
    max_leaves=8,
)
REPEATED = st.one_of(
    VALUES, st.builds(lambda item, count: [item] * count, VALUES, st.sampled_from([5, 129, 1025, 5000]))
)


@settings(deadline=None, max_examples=80, derandomize=True)
@given(fields=st.dictionaries(KEYS, REPEATED, max_size=3), path=st.sampled_from(BODIES))
def test_whatever_is_sent_is_within_bounds_or_refused_in_few_bytes(fields: dict[str, Any], path: str) -> None:
    """No error of ours; what passes is small, and means the same to the limits as to the engine."""
    content = json.dumps(fields)
    response = CLIENT.post(path, content=content)
    assert response.status_code in {200, 400, 413}
    assert len(response.content) <= MAX_RESPONSE_BYTES
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        return
    received = json.loads(content)
    for name in INTEGERS:
        assert type(received.get(name)) in {int, type(None)}
    body = RequestBody(content.encode())
    assert body.fields is not None
    assert count_choices(body.fields) <= 2000
    assert estimate_tokens(body) >= max(received.get(name) or 0 for name in ("max_tokens", "max_completion_tokens"))


@settings(deadline=None, max_examples=200, derandomize=True)
@given(pairs=st.lists(st.tuples(st.sampled_from(["n", "max_tokens", "prompt"]), SCALARS), max_size=6))
def test_a_document_has_one_meaning(pairs: list[tuple[str, Any]]) -> None:
    """Keys that come twice included: the parser of the limits and that of the application agree."""
    content = "{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}"
    try:
        parsed = from_json(content, allow_inf_nan=False)
    except ValueError:
        return
    assert parsed == json.loads(content)
    assert {key: type(value) for key, value in parsed.items()} == {
        key: type(value) for key, value in json.loads(content).items()
    }


MARKS = '[]{},:"\\/\u00e9 a1'
"""Characters that mean something in JSON, and some that do not."""


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    document=st.recursive(
        st.one_of(st.text(MARKS, max_size=6), st.integers(), st.booleans()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(MARKS, max_size=6), inner)),
    ),
    spaced=st.booleans(),
)
def test_the_text_of_a_document_is_measured_without_parsing_it(document: Any, *, spaced: bool) -> None:
    """What stands in texts does not count, and the rest counts for what the parser would make of it."""
    text = json.dumps(document, separators=(", ", ": ") if spaced else (",", ":")).encode()
    entries = sum(max(len(each), 1) for each in containers(document))
    quotes = 2 * sum(isinstance(each, str) for each in everything(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_bounds, "MAX_MARKS", entries)
        patch.setattr(document_bounds, "MAX_QUOTES", quotes)
        assert document_bounds.text_problem(text) is None
        patch.setattr(document_bounds, "MAX_MARKS", entries - 1)
        assert entries == 0 or document_bounds.text_problem(text)
        patch.setattr(document_bounds, "MAX_MARKS", entries)
        patch.setattr(document_bounds, "MAX_QUOTES", quotes - 1)
        assert quotes == 0 or document_bounds.text_problem(text)


def everything(document: Any) -> Iterator[Any]:
    """All values of a document, and the keys of its objects."""
    yield document
    if isinstance(document, dict):
        yield from document
        document = [*document.values()]
    for inner in document if isinstance(document, list) else ():
        yield from everything(inner)


def containers(document: Any) -> list[Any]:
    """The lists and objects of a document."""
    return [each for each in everything(document) if isinstance(each, (list, dict))]


LONG: dict[str, bytes] = {
    "lists": b"[" + b"[]," * 10**6 + b"[]]",
    "objects": b"[" + b"{}," * 10**6 + b"{}]",
    "integers": b"[" + b"1," * 10**6 + b"1]",
    "texts": b"[" + b'"",' * 10**6 + b'""]',
    "keys": b'{"a":1' + b',"b":1' * 500_000 + b"}",
    "open lists": b"[[]," * 10**6,
    "lists behind texts": b'["\\\\","\\"","' + b"[]" * 9 + b'",' + b"[]," * 10**6 + b"[]]",
}
"""Bodies that take the parser long."""


@pytest.mark.parametrize("name", LONG)
def test_what_takes_long_to_parse_is_refused_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop would stand still meanwhile."""
    monkeypatch.setattr(RequestBody, "_parse", lambda _: pytest.fail("it was parsed"))
    require_refusal(CLIENT.post("/v1/completions", content=b'{"unknown":' + LONG[name] + b"}"))


def test_a_body_that_is_refused_unparsed_is_let_go_before_its_client_hears_of_it() -> None:
    """Its client may take its time to read, and the memory of bodies has been given back by then."""
    bodies: list[RequestBody | None] = []

    class Watch(HttpMiddleware):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            context = context_of(scope)

            async def look(_: Message) -> None:
                bodies.append(context.body)

            context.response.on_start.append(look)
            await self.app(scope, receive, send)

    buffering = Middleware(Buffering, config=config(), budget=MemoryBudget(2**30))
    client = TestClient(behind(accept, Middleware(Watch), buffering))
    require_refusal(client.post("/v1/completions", content=LONG["lists"]))
    assert bodies == [None]


@pytest.mark.parametrize("text", [",[{" * 10**6, '\\"' * 10**6, "\\\\" * 10**6])
def test_a_long_text_is_no_structure(text: str) -> None:
    """Whatever it says."""
    assert CLIENT.post("/v1/completions", content=json.dumps({"prompt": text})).status_code == 200
