"""Requests that end in every way that a client can bring about, drawn from a seed."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.integration.serving import NAME
from tests.integration.training import DEADLINE

TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
WORDS = ("def read", "class Reader:", "import json\n\n", "a", "# a comment that is longer than the others, so " * 8)
LONGEST = 900
"""Tokens of the longest responses: they take the engine seconds."""


@dataclass
class Charge:
    """A request: its body, its headers, and when its client leaves."""

    kind: str
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    leaves_after: float | None = None
    """Seconds after which the client closes the connection; None: it waits for the response."""


def _prompt(draw: random.Random) -> Any:
    """One prompt or several, as text or as tokens."""
    kind = draw.randrange(5)
    if kind < 2:
        return draw.choice(WORDS)
    if kind == 2:
        return draw.choices(WORDS, k=draw.randint(1, 6))
    tokens = [draw.choices(range(3, 250), k=draw.randint(1, 300)) for _ in range(draw.randint(1, 5))]
    return tokens if kind == 3 else tokens[0]


def _options(draw: random.Random) -> dict[str, Any]:
    """What changes how a response is computed."""
    options: list[dict[str, Any]] = [
        {},
        {"n": draw.randint(2, 5)},
        {"echo": True, "logprobs": 2},
        {"logprobs": 3, "temperature": 0},
        {"stop": ["e", "("]},
        {"seed": draw.randrange(100), "presence_penalty": 0.5},
        {"prompt_logprobs": 1},
        {"best_of": 3},
        {"structured_outputs": {"regex": "[ab]{1,40}"}, "ignore_eos": False},
    ]
    return draw.choice(options)


def _completion(draw: random.Random, longest: int) -> dict[str, Any]:
    body = {"model": NAME, "prompt": _prompt(draw), "max_tokens": draw.randint(1, longest), "ignore_eos": True}
    return body | _options(draw)


def _whole(draw: random.Random) -> Charge:
    return Charge("whole", _completion(draw, 30))


def _stream(draw: random.Random) -> Charge:
    return Charge("stream", _completion(draw, 30) | {"stream": True, "stream_options": {"include_usage": True}})


def _late(draw: random.Random) -> Charge:
    body = _completion(draw, LONGEST) | {"stream": draw.random() < 0.5}
    return Charge("late", body, {TIMEOUT_HEADER: f"{draw.uniform(0.005, 0.5):.3f}"})


def _gone(draw: random.Random) -> Charge:
    body = _completion(draw, LONGEST) | {"stream": draw.random() < 0.5}
    return Charge("gone", body, leaves_after=draw.uniform(0.0, 0.5))


def _beam(draw: random.Random) -> Charge:
    body = {"model": NAME, "prompt": draw.choice(WORDS), "max_tokens": draw.randint(1, 8), "use_beam_search": True}
    return Charge("beam", body | {"n": draw.randint(1, 3), "temperature": 0})


def _refused(draw: random.Random) -> Charge:
    bodies: list[dict[str, Any]] = [
        {"model": "other", "prompt": "a"},
        {"model": NAME, "prompt": "a", "max_tokens": "many"},
        {"model": NAME, "prompt": [5] * 5000},
        {"model": NAME, "prompt": ["a", [1, "b"]]},
        {"model": NAME, "prompt": "a", "n": 1000},
        {"model": NAME, "prompt": "a", "temperature": -1},
        {"model": NAME, "prompt": ["a", "b"], "structured_outputs": {"grammar": "no grammar"}},
        {"model": NAME, "prompt": ["a", "b"], "max_tokens": 9, "structured_outputs": {"regex": "(?<=x)y"}},
    ]
    headers = {"Authorization": "Bearer hw-wrong"} if draw.random() < 0.2 else {}
    return Charge("refused", draw.choice(bodies), headers)


KINDS: list[tuple[int, Callable[[random.Random], Charge]]] = [
    (4, _whole),
    (4, _stream),
    (4, _late),
    (4, _gone),
    (1, _beam),
    (2, _refused),
]
"""Ways to end, and how often each is drawn."""


def drawn(seed: int, count: int) -> list[Charge]:
    """So many requests; all kinds are among the first twenty."""
    draw = random.Random(seed)
    kinds = [kind for weight, kind in KINDS for _ in range(weight)]
    order: list[Callable[[random.Random], Charge]] = []
    while len(order) < count:
        order += draw.sample(kinds, k=len(kinds))
    return [kind(draw) for kind in order[:count]]


def send(charge: Charge, url: str, key: str) -> dict[str, Any] | None:
    """Send a request. Returns the usage that a whole response tells; None if there is none."""
    headers = {"Authorization": f"Bearer {key}"} | charge.headers
    timeout = httpx.Timeout(DEADLINE, read=charge.leaves_after or DEADLINE)
    begun = time.monotonic()
    usage: dict[str, Any] | None = None
    with (
        suppress(httpx.HTTPError),
        httpx.Client(timeout=timeout) as client,
        client.stream("POST", url, json=charge.body, headers=headers) as response,
    ):
        text = ""
        for piece in response.iter_text():
            text += piece
            if charge.leaves_after is not None and time.monotonic() - begun > charge.leaves_after:
                return None
        if charge.kind == "whole" and response.status_code == httpx.codes.OK:
            usage = httpx.Response(200, text=text).json()["usage"]
    return usage
