"""A store is asked again while there is budget, and spared while it fails every time."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import tenacity

from headway.errors import TransientError
from headway.objectstore import breaker, retry
from headway.objectstore.retry import MAX_FAILURES, REST_SECONDS, BucketBreaker, RetryPolicy

BUDGET = 60.0


class Clock:
    """Time that passes only when somebody waits, or says so."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Wait, in no time."""
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of retries and breakers."""
    made = Clock()
    for module in (breaker, tenacity, tenacity.nap):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No test inherits another's breaker."""
    retry.bucket_breaker.cache_clear()
    yield
    retry.bucket_breaker.cache_clear()


class Server:
    """Fails in passing a number of times, then answers; each request takes a while."""

    def __init__(self, clock: Clock, failures: float, seconds: float = 0.0) -> None:
        self.clock, self.failures, self.seconds = clock, failures, seconds
        self.asked = 0

    def __call__(self) -> str:
        """Answer, or fail."""
        self.asked += 1
        self.clock.now += self.seconds
        if self.asked <= self.failures:
            raise TransientError(f"failure {self.asked}")
        return "answer"


def fail() -> None:
    """Fail in passing."""
    raise TransientError("gone")


def opened() -> BucketBreaker:
    """A breaker that has just opened."""
    guard = BucketBreaker("bucket b")
    for _ in range(MAX_FAILURES):
        with pytest.raises(TransientError, match=r"^gone$"):
            guard.call(fail)
    return guard


@pytest.mark.parametrize("failures", [0, 1, MAX_FAILURES - 1, MAX_FAILURES, MAX_FAILURES + 2])
def test_what_passes_is_waited_for(clock: Clock, failures: int) -> None:
    """The answer comes after any number of failures that the budget has room for, also when the breaker opened."""
    server = Server(clock, failures)
    assert RetryPolicy("b", BUDGET).ask(server) == "answer"
    assert server.asked == failures + 1


def test_other_errors_are_not_asked_again(clock: Clock) -> None:
    """What will not pass is raised at once, as it is."""

    def wrong() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        RetryPolicy("b", BUDGET).ask(wrong)
    assert clock.waits == []


@pytest.mark.parametrize("seconds", [0.0, 0.3, 10.0])
def test_the_budget_is_kept_up_to_the_last_time_out(clock: Clock, seconds: float) -> None:
    """No wait ends behind the budget, so that only the last request may: the last failure is what is said."""
    for seed in range(20):
        random.seed(seed)
        retry.bucket_breaker.cache_clear()
        began, server = clock.now, Server(clock, float("inf"), seconds)
        with pytest.raises(TransientError) as caught:
            RetryPolicy("b", BUDGET).ask(server)
        assert f"failure {server.asked}" in str(caught.value)
        assert BUDGET / 2 < clock.now - began < BUDGET + seconds + 0.001


def test_an_open_breaker_lets_one_request_through_in_a_while(clock: Clock) -> None:
    """Nothing reaches the store while it rests, then one request of many does, and the cause is said all the time."""
    guard = opened()
    server = Server(clock, float("inf"))
    for _ in range(3):
        with pytest.raises(TransientError, match=f"gone; bucket b failed {MAX_FAILURES} times in a row"):
            guard.call(server)
    assert server.asked == 0
    for round_ in range(1, 4):
        clock.now += REST_SECONDS
        for _ in range(5):
            with pytest.raises(TransientError, match="failure"):
                guard.call(server)
        assert server.asked == round_


def test_of_requests_side_by_side_one_tries_an_open_breaker(clock: Clock) -> None:
    """Sixteen threads that wait for the same store do not fall on it together."""
    guard, server, start = opened(), Server(clock, float("inf")), Barrier(16)
    clock.now += REST_SECONDS

    def ask(_: int) -> None:
        start.wait()
        with pytest.raises(TransientError):
            guard.call(server)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(16)))
    assert server.asked == 1


def test_a_long_trial_does_not_keep_others_waiting(clock: Clock) -> None:
    """While the one request that was let through takes minutes, others are let through, one in a while."""
    guard = opened()
    clock.now += REST_SECONDS

    def long() -> str:
        with pytest.raises(TransientError, match="gone; bucket b failed"):
            guard.call(lambda: "too soon")
        clock.now += REST_SECONDS
        return guard.call(lambda: "other")

    assert guard.call(long) == "other"


def test_a_success_closes_the_breaker(clock: Clock) -> None:
    """One answer, also of a request that had begun before, and all requests go through."""
    guard = BucketBreaker("b")

    def slow() -> str:
        for _ in range(MAX_FAILURES):
            with pytest.raises(TransientError):
                guard.call(fail)
        return "slow"

    assert guard.call(slow) == "slow"
    server = Server(clock, 0)
    assert guard.call(server) == "answer"


def test_an_error_that_is_an_answer_is_no_failure(clock: Clock) -> None:  # noqa: ARG001 - no time passes
    """A store that says that an object is missing works: failures on both sides of it are not in a row."""
    guard = BucketBreaker("b")

    def missing() -> None:
        raise KeyError("missing")

    for _ in range(MAX_FAILURES):
        with pytest.raises(TransientError, match=r"^gone$"):
            guard.call(fail)
        with pytest.raises(KeyError):
            guard.call(missing)


def test_a_long_silence_is_said_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A person who waits is told what for, and not again for each request."""
    asking = RetryPolicy("bucket b", BUDGET)
    for _ in range(2):
        with pytest.raises(TransientError):
            asking.ask(Server(clock, float("inf"), 1.0))
    said = [record.getMessage() for record in caplog.records if record.name == "headway"]
    assert len(said) == 1
    assert "bucket b does not answer as it should (failure" in said[0]
