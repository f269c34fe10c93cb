"""The trial of grammars: forks within limits, and a process that is started again when it dies."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.serve.replicas import config
from vllm.exceptions import VLLMValidationError

from headway.serve.engine import grammar_process, grammar_trial
from headway.serve.engine.grammar_process import NOT_COMPILED, TOO_EXPENSIVE, run_in_fork
from headway.serve.engine.grammar_trial import GrammarTrial
from headway.serve.request_context import RequestContext

pytestmark = pytest.mark.xdist_group("vllm")


def refuse() -> None:
    """Refuse a grammar, as vLLM's check does."""
    raise VLLMValidationError("no such rule" * 1000)


def fail() -> None:
    """Fail, as a library does."""
    raise RuntimeError("what only its authors understand")


def burn() -> None:
    """Take all the time that there is."""
    while True:
        pass


def sleep() -> None:
    """Wait for what never comes, as a library that lost its threads in a fork does."""
    time.sleep(1000)


def allocate() -> None:
    """Take more memory than there may be."""
    bytearray(2 * grammar_process.MEMORY_BYTES)


def crash() -> None:
    """End as a library that does not handle an error does."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: None, ""),
        (refuse, ("no such rule" * 1000)[:500]),
        (fail, NOT_COMPILED),
        (burn, TOO_EXPENSIVE),
        (sleep, TOO_EXPENSIVE),
        (allocate, TOO_EXPENSIVE),
        (crash, TOO_EXPENSIVE),
    ],
)
def test_a_fork_has_limits(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None], message: str) -> None:
    """Of time, and of memory; what it says in the end is bounded too."""
    monkeypatch.setattr(grammar_process, "CPU_SECONDS", 1)
    monkeypatch.setattr(grammar_process, "WALL_SECONDS", 3)
    start = time.monotonic()
    assert run_in_fork(work) == message
    assert time.monotonic() - start < 10


def serve_some(connection: Connection, _: Any) -> None:
    """Respond with the grammar itself and the number of this process; die of some."""
    connection.send("")
    while True:
        grammar = connection.recv()
        if grammar == "deadly":
            os._exit(1)
        connection.send("" if grammar == "good" else f"{grammar} {os.getpid()}")


@pytest.mark.timeout(60)
def test_a_grammar_is_compiled_once_and_a_dead_process_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it died of is refused like what it refuses; a request without a grammar asks nobody."""
    monkeypatch.setattr(grammar_trial, "serve_trials", serve_some)

    async def scenario() -> None:
        trial = GrammarTrial(cast("Any", None), config(), cast("Any", get_context("fork")))

        async def problem(grammar: str | None) -> str:
            params = cast("Any", SimpleNamespace(structured_outputs=grammar))
            try:
                await trial.require_compilable(params, RequestContext("x"))
            except VLLMValidationError as error:
                return str(error)
            return ""

        assert await problem(None) == ""
        assert trial._process is None  # noqa: SLF001 - nobody else knows
        assert await problem("good") == await problem("good") == ""
        first, second = await asyncio.gather(problem("bad"), problem("worse"))
        assert first.removeprefix("bad ") == second.removeprefix("worse ")
        assert await problem("deadly") == await problem("deadly") == TOO_EXPENSIVE
        assert await problem("bad") == first
        assert (await problem("other")).removeprefix("other ") != first.removeprefix("bad ")
        trial.close()

    asyncio.run(scenario())


@pytest.mark.timeout(60)
def test_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grammar that was asked for longest ago is forgotten."""
    monkeypatch.setattr(grammar_trial, "MAX_RESULTS", 2)
    compiled: list[str] = []

    def compile_(grammar: Any) -> str:
        compiled.append(grammar)
        return ""

    async def scenario() -> None:
        trial = GrammarTrial(cast("Any", None), config(), cast("Any", None))
        monkeypatch.setattr(trial, "_compile", compile_)
        for grammar in ("a", "b", "a", "c", "a", "b"):
            params = cast("Any", SimpleNamespace(structured_outputs=grammar))
            await trial.require_compilable(params, RequestContext("x"))

    asyncio.run(scenario())
    assert compiled == ["a", "b", "c", "b"]
