"""Requests are retried while the budget lasts, and rejected while the circuit is open."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import tenacity

from headway.errors import TransientError
from headway.objectstore import breaker, retry
from headway.objectstore.breaker import CircuitBreaker
from headway.objectstore.retry import MAX_FAILURES, RESET_SECONDS, RetryPolicy

BUDGET = 60.0


class Clock:
    """Time that passes only by `sleep` and by assignment."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of retries and breakers."""
    clock = Clock()
    for module in (breaker, tenacity, tenacity.nap):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Each test starts without breakers."""
    retry.bucket_breakers.clear()
    yield
    retry.bucket_breakers.clear()


class Server:
    """Fails transiently a number of times, then answers. Each request takes `seconds`."""

    def __init__(self, clock: Clock, failures: float, seconds: float = 0.0) -> None:
        self.clock, self.failures, self.seconds = clock, failures, seconds
        self.requests = 0

    def __call__(self) -> str:
        """Answer, or fail."""
        self.requests += 1
        self.clock.now += self.seconds
        if self.requests <= self.failures:
            raise TransientError(f"failure {self.requests}")
        return "answer"


def fail() -> None:
    """Fail transiently."""
    raise TransientError("gone")


def opened() -> CircuitBreaker:
    """A breaker whose circuit has just opened."""
    circuit = CircuitBreaker("bucket b", MAX_FAILURES, RESET_SECONDS)
    for _ in range(MAX_FAILURES):
        with pytest.raises(TransientError, match=r"^gone$"):
            circuit.call(fail)
    return circuit


@pytest.mark.parametrize("failures", [0, 1, MAX_FAILURES - 1, MAX_FAILURES, MAX_FAILURES + 2])
def test_transient_failures_are_retried(clock: Clock, failures: int) -> None:
    """The answer comes after any number of failures within the budget, even if the circuit opened."""
    server = Server(clock, failures)
    assert RetryPolicy("b", BUDGET).call(server) == "answer"
    assert server.requests == failures + 1


def test_other_errors_are_not_retried(clock: Clock) -> None:
    """A permanent error is raised unchanged at once."""

    def wrong() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        RetryPolicy("b", BUDGET).call(wrong)
    assert clock.waits == []


@pytest.mark.parametrize("seconds", [0.0, 0.3, 10.0])
def test_the_budget_is_kept_up_to_the_last_time_out(clock: Clock, seconds: float) -> None:
    """No wait ends after the budget, only the last request may. The last failure is raised."""
    for seed in range(20):
        random.seed(seed)
        retry.bucket_breakers.clear()
        began, server = clock.now, Server(clock, float("inf"), seconds)
        with pytest.raises(TransientError) as caught:
            RetryPolicy("b", BUDGET).call(server)
        assert f"failure {server.requests}" in str(caught.value)
        assert BUDGET / 2 < clock.now - began < BUDGET + seconds + 0.001


def test_an_open_circuit_allows_one_probe_at_a_time(clock: Clock) -> None:
    """Between probes no request reaches the store, and each error names the cause."""
    circuit = opened()
    server = Server(clock, float("inf"))
    for _ in range(3):
        with pytest.raises(TransientError, match=f"gone; bucket b failed {MAX_FAILURES} times in a row"):
            circuit.call(server)
    assert server.requests == 0
    for round_ in range(1, 4):
        clock.now += RESET_SECONDS
        for _ in range(5):
            with pytest.raises(TransientError, match="failure"):
                circuit.call(server)
        assert server.requests == round_


def test_one_of_many_concurrent_requests_is_the_probe(clock: Clock) -> None:
    """Sixteen threads that wait for a store do not hit it together."""
    circuit, server, start = opened(), Server(clock, float("inf")), Barrier(16)
    clock.now += RESET_SECONDS

    def call(_: int) -> None:
        start.wait()
        with pytest.raises(TransientError):
            circuit.call(server)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(call, range(16)))
    assert server.requests == 1


def test_a_long_probe_does_not_block_the_next(clock: Clock) -> None:
    """While a probe takes minutes, another one is allowed per interval."""
    circuit = opened()
    clock.now += RESET_SECONDS

    def long() -> str:
        with pytest.raises(TransientError, match="gone; bucket b failed"):
            circuit.call(lambda: "too soon")
        clock.now += RESET_SECONDS
        return circuit.call(lambda: "other")

    assert circuit.call(long) == "other"


def test_a_success_closes_the_circuit(clock: Clock) -> None:
    """One answer, even to a request from before it opened, allows all requests."""
    circuit = CircuitBreaker("b", MAX_FAILURES, RESET_SECONDS)

    def slow() -> str:
        for _ in range(MAX_FAILURES):
            with pytest.raises(TransientError):
                circuit.call(fail)
        return "slow"

    assert circuit.call(slow) == "slow"
    server = Server(clock, 0)
    assert circuit.call(server) == "answer"


def test_an_error_that_is_an_answer_is_no_failure(clock: Clock) -> None:  # noqa: ARG001 - no time passes
    """A store that reports a missing object works: failures before and after it are not in a row."""
    circuit = CircuitBreaker("b", MAX_FAILURES, RESET_SECONDS)

    def missing() -> None:
        raise KeyError("missing")

    for _ in range(MAX_FAILURES):
        with pytest.raises(TransientError, match=r"^gone$"):
            circuit.call(fail)
        with pytest.raises(KeyError):
            circuit.call(missing)


def test_long_retries_are_logged_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A person who waits sees the reason, once per policy."""
    policy = RetryPolicy("bucket b", BUDGET)
    for _ in range(2):
        with pytest.raises(TransientError):
            policy.call(Server(clock, float("inf"), 1.0))
    messages = [record.getMessage() for record in caplog.records if record.name == "headway"]
    assert len(messages) == 1
    assert "bucket b fails (failure" in messages[0]
