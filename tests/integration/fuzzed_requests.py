"""Requests that nobody would write: valid ones that are changed at random, in their heads, documents and bytes.

Everything is drawn from a seed, so the same seed sends the same bytes.
"""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

from headway.serve.bounds.request_bounds import BOUNDS
from headway.serve.routes import ROUTES
from tests.integration.serving import NAME

MESSAGE = {"role": "user", "content": "def read"}
TOOL = {
    "type": "function",
    "function": {"name": "read", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {}}}}
BASES: dict[str, list[dict[str, Any]]] = {
    "/v1/completions": [
        {"prompt": "def read", "max_tokens": 2},
        {"prompt": [5, 6, 7], "max_tokens": 2, "stop": ["a", "b"], "logprobs": 2, "n": 2},
        {"prompt": ["a", "b"], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}},
        {"prompt": [[5], [6, 7]], "max_tokens": 1, "logit_bias": {"5": 1.5}, "temperature": 0.5, "seed": 1},
        {"prompt": "a", "max_tokens": 4, "structured_outputs": {"regex": "[ab]{1,3}"}},
        {"prompt": "a", "max_tokens": 4, "structured_outputs": {"json": SCHEMA}},
        {"prompt": "a", "max_tokens": 2, "bad_words": ["x"], "stop_token_ids": [5], "allowed_token_ids": [5, 6]},
    ],
    "/v1/chat/completions": [
        {"messages": [MESSAGE], "max_tokens": 2},
        {"messages": [MESSAGE, {"role": "assistant", "content": "x"}, MESSAGE], "max_tokens": 2, "stream": True},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_completion_tokens": 2},
        {"messages": [MESSAGE], "tools": [TOOL], "max_tokens": 2},
        {"messages": [MESSAGE], "max_tokens": 4, "response_format": {"type": "json_object"}},
        {"messages": [MESSAGE], "max_tokens": 2, "logprobs": True, "top_logprobs": 3},
    ],
    "/v1/responses": [
        {"input": "a", "max_output_tokens": 2},
        {"input": [MESSAGE], "max_output_tokens": 2, "stream": True},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}], "max_output_tokens": 2},
    ],
    "/v1/embeddings": [{"input": "a"}],
    "/tokenize": [{"prompt": "def read"}, {"messages": [MESSAGE]}],
    "/detokenize": [{"tokens": [5, 6, 7]}],
}
"""Valid requests for each path with a body; their responses are short."""
COUNTS = (2, 5, 129, 257, 1025, 10_000, 100_000)
DEPTHS = (2, 63, 65, 200)
ODD_VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1.5, -0.0, 1e308, 2**31, 2**63, 10**30, "", "a", "\0", [], {})
ODD_VALUES += ("200", "4000", "1e9", "NaN", " 7 ", "\ud800", "/a" * 1000, [[]], [{}], [None], {"": {}})
GRAMMARS: tuple[Any, ...] = (
    {"regex": "(a|b)?" * 60},
    {"regex": "a{1,19000}"},
    {"json": {"type": "array", "minItems": 3000}},
    {"json": {"$ref": "#"}},
    {"json": {"enum": list(range(1000))}},
    {"choice": ["ab", "abc"] * 200},
    {"grammar": 'root ::= "a" root | "b"'},
    {"grammar": 'start: %json {"type": "array", "maxItems": 900}'},
    {"structural_tag": "{}"},
)
MAX_BYTES = 5 * 2**20
"""Longest body, which is more than a service accepts [bytes]."""
Change = Callable[[Any, Random], Any]
"""Makes another value of a value in a document."""


@dataclass(frozen=True)
class FuzzedRequest:
    """What is sent on one connection."""

    path: str
    content: bytes
    sent_bytes: int
    """How much of it is sent."""
    is_sound: bool
    """Whether it is sent whole, with the head that belongs to its body: the service has all that it waits for."""


def fuzzed_requests(seed: str, token_ids: int) -> Iterator[FuzzedRequest]:
    """Draw requests without end, to a model with so many token ids."""
    draw = Random(seed)
    changes = [*CHANGES, *[_edge_of_vocabulary(token_ids)] * 2]
    while True:
        path = draw.choice([*BASES] * 3 + [*ROUTES, "/nothing"])
        body = b""
        if path in BASES:
            document = {"model": NAME} | deepcopy(draw.choice(BASES[path]))
            for _ in range(draw.choice((0, 1, 1, 2))):
                document = _changed(document, draw.choice(changes), draw)
            if draw.random() < 0.3:  # at last: what is repeated is one object many times
                document = _changed(document, _repeat, draw)
            body = json.dumps(document).encode()[:MAX_BYTES]
        if body and draw.random() < 0.25:
            body = draw.choice(DAMAGES)(body, draw)
        head, is_sound = _head(path, body, draw)
        content = head + body
        if draw.random() < 0.1:
            content, is_sound = draw.choice(DAMAGES)(content, draw), False
        if draw.random() < 0.05:
            content += content
        sent_bytes = draw.randrange(len(content)) if draw.random() < 0.2 else len(content)
        yield FuzzedRequest(path, content, sent_bytes, is_sound and sent_bytes == len(content))


def _changed(document: Any, change: Change, draw: Random) -> Any:
    """A document in which one value, anywhere in it, is changed, or another field is added."""
    if draw.random() < 0.15:
        name = draw.choice([*BOUNDS, "structured_outputs", "response_format", "stream_options", "suffix", "unknown"])
        value = deepcopy(draw.choice(GRAMMARS if name == "structured_outputs" else ODD_VALUES))
        return document | {name: value} if isinstance(document, dict) else [document]
    places: list[tuple[Any, Any]] = []
    pending = [document]
    while pending and len(places) < 1000:
        item = pending.pop()
        if isinstance(item, (dict, list)):
            keys = list(item) if isinstance(item, dict) else range(min(len(item), 10))
            places += [(item, key) for key in keys]
            pending += [item[key] for key in keys]
    if places:
        holder, key = draw.choice(places)
        holder[key] = change(holder[key], draw)
    return document


def _repeat(value: Any, draw: Random) -> Any:
    """Many of the same."""
    count = min(draw.choice(COUNTS), MAX_BYTES // len(json.dumps(value)))
    if isinstance(value, str):
        return value * count
    return (value if isinstance(value, list) else [value]) * count


def _nest(value: Any, draw: Random) -> Any:
    """Deep in lists or objects."""
    for _ in range(draw.choice(DEPTHS)):
        value = draw.choice(([value], {"a": value}))
    return value


def _edge_of_vocabulary(token_ids: int) -> Change:
    """Change a value to a token id near an edge."""
    edges = (-1, 0, token_ids - 1, token_ids, token_ids + 1, token_ids + 63, 2**31 - 1, 2**31)

    def change(_: Any, draw: Random) -> Any:
        edge = draw.choice(edges)
        return draw.choice((edge, [edge], [1, edge], {str(edge): 1}, str(edge)))

    return change


CHANGES: tuple[Change, ...] = (
    lambda _, draw: deepcopy(draw.choice(ODD_VALUES)),
    lambda value, _: json.dumps(value),
    lambda value, draw: value * draw.choice((-1, 2, 1000, 10**9)) if isinstance(value, (int, float)) else [value],
    lambda _, draw: deepcopy(draw.choice(GRAMMARS)),
    _nest,
)
"""What a value of a document becomes."""


def _splice(content: bytes, draw: Random) -> bytes:
    """Repeat a part of it, many times or none."""
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    end = min(end, start + 1000)
    return (content[:start] + content[start:end] * draw.choice((0, 2, 50)) + content[end:])[:MAX_BYTES]


def _flip(content: bytes, draw: Random) -> bytes:
    """Change some bytes."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 3, 20))):
        changed[draw.randrange(len(changed))] = draw.choice((0, 10, 13, 34, 44, 58, 91, 92, 123, 128, 255))
    return bytes(changed)


def _deepen(content: bytes, draw: Random) -> bytes:
    """Open many lists or objects in the midst of it."""
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.choice((b"[", b'{"a":', b'[{"":')) * draw.choice(COUNTS) + content[place:]


DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (_splice, _flip, _deepen)
"""What happens to bytes."""


def _head(path: str, body: bytes, draw: Random) -> tuple[bytes, bool]:
    """A head, and whether it is right, as most are."""
    method = ROUTES[path].method if path in ROUTES else "GET"
    fields = [f"Host: {NAME}", "Connection: close"]
    if body:
        fields += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if draw.random() < 0.7:
        return _written(method, path, fields), True
    odd = draw.randrange(10)
    if odd == 0:
        method = draw.choice(("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "X" * 100))
    elif odd == 1:
        path = draw.choice((path + "?" + "a=%00&" * draw.choice(COUNTS), "/" * draw.choice(COUNTS), f"http://x{path}"))
    elif odd == 2:
        fields += [f"X-{number}: a" for number in range(draw.choice((1, 200, 260, 10_000)))]
    elif odd == 3:
        fields += ["X-Long: " + "a" * draw.choice((1000, 65_000, 70_000, 10**6))]
    elif odd == 4:
        fields[-1] = f"Content-Length: {draw.choice((0, 1, len(body) + 1, 10**20, -1, 'x'))}"
    elif odd == 5:
        fields = [*fields[:-1], "Transfer-Encoding: chunked"]
    elif odd == 6:
        fields += ["Expect: 100-continue"]
    elif odd == 7:
        value = draw.choice(("1", "0.001", "-1", "x", "1e9", "9" * 400, ""))
        fields += [
            f"{name}: {value}" for name in ("X-Request-Timeout-Seconds", "X-Request-ID", "traceparent", "Authorization")
        ]
    elif odd == 8:
        fields = draw.sample(fields, draw.randrange(len(fields)))
    else:
        fields += ["Content-Type: text/plain", "Content-Encoding: gzip", "Content-Length: 3", "Host: y"]
    return _written(method, path, fields), False


def _written(method: str, path: str, fields: list[str]) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode()
