"""Metric families of a served model; those of training are in `metrics`. Imports prometheus_client.

They are in the default registry of the process, together with vLLM's families, so one scrape gets both. Histograms have
exemplars with the ids of request and trace, for scrapers that accept OpenMetrics.
"""

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Info, make_asgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
MODEL_LABELS = ("model", "version", "role", "device", "quantization")
"""Labels of every family."""
TENANT_LABELS = (*MODEL_LABELS, "tenant")
KINDS = ("prompt", "answer")
"""Kinds of tokens."""


class RequestMetrics:
    """Requests, latencies and tokens, by tenant."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "headway_serve_requests_total",
            "Requests, by status code and outcome: ok, refused, failed, late (deadline exceeded), gone (client left).",
            [*TENANT_LABELS, "path", "code", "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "headway_serve_request_duration_seconds",
            "Time from arrival to the last byte of the response.",
            TENANT_LABELS,
            buckets=SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "headway_serve_time_to_first_token_seconds",
            "Time from arrival to the first token, of responses with at least one token.",
            TENANT_LABELS,
            buckets=SECONDS,
            registry=registry,
        )
        self.per_token = Histogram(
            "headway_serve_time_per_output_token_seconds",
            "Mean time between the tokens of a response, of responses with at least two tokens.",
            TENANT_LABELS,
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self.queue = Histogram(
            "headway_serve_queue_seconds",
            "Time that requests waited for the engine.",
            TENANT_LABELS,
            buckets=SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "headway_serve_tokens_total",
            "Tokens that the tenant is charged, by kind: prompt, answer.",
            [*TENANT_LABELS, "kind"],
            registry=registry,
        )


class CostMetrics:
    """Device time and its cost, by tenant."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.device_seconds = Counter(
            "headway_serve_tenant_device_seconds_total",
            "Device seconds of the tenant, shared equally among concurrent requests.",
            TENANT_LABELS,
            registry=registry,
        )
        self.cost = Counter(
            "headway_serve_tenant_cost_total", "Cost of the tenant's device seconds.", TENANT_LABELS, registry=registry
        )


class EngineMetrics:
    """The tokens that engines compute, their deaths, and the requests that survived them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tokens = Counter(
            "headway_serve_engine_tokens_total",
            "Tokens that the engines counted, by kind: prompt, answer.",
            [*MODEL_LABELS, "kind"],
            registry=registry,
        )
        self.overhead = Counter(
            "headway_serve_overhead_tokens_total",
            "Tokens that no tenant is charged, by kind and reason: start (of an engine), replay (after one died).",
            [*MODEL_LABELS, "kind", "reason"],
            registry=registry,
        )
        self.resumed = Counter(
            "headway_serve_resumed_total",
            "Requests resumed on another engine after theirs died.",
            MODEL_LABELS,
            registry=registry,
        )
        self.deaths = Counter(
            "headway_serve_engine_deaths_total", "Engines that died while serving.", MODEL_LABELS, registry=registry
        )


class ServingMetrics:
    """All families of a served model, with methods that record what happens."""

    def __init__(self, registry: CollectorRegistry = REGISTRY, **model: str) -> None:
        """`model`: the values of `MODEL_LABELS`."""
        self._registry = registry
        self._model = [model[label] for label in MODEL_LABELS]
        self._requests = RequestMetrics(registry)
        self._costs = CostMetrics(registry)
        self._engine = EngineMetrics(registry)
        for counter in (self._engine.resumed, self._engine.deaths):
            counter.labels(*self._model)
        self._step_tokens = [self._engine.tokens.labels(*self._model, kind) for kind in KINDS]
        self._overhead = {
            reason: [self._engine.overhead.labels(*self._model, kind, reason) for kind in KINDS]
            for reason in ("start", "replay")
        }
        Info("headway_serve_model", "Served model.", MODEL_LABELS, registry=registry).labels(*self._model).info({})

    def register_engine(
        self,
        *,
        busy_seconds: Callable[[], float],
        computed_requests: Callable[[], float],
        waiting_requests: Callable[[], float],
        cache_usage: Callable[[], float],
    ) -> None:
        """Add the families of the engine, whose values are read at each scrape."""
        values = {
            "headway_serve_device_seconds_total": ("Seconds in which the engine computed.", busy_seconds),
            "headway_serve_computed_requests": ("Requests being computed.", computed_requests),
            "headway_serve_waiting_requests": ("Requests waiting for the engine.", waiting_requests),
            "headway_serve_cache_usage_ratio": ("Used share of the engine's KV cache.", cache_usage),
        }
        for name, (documentation, value) in values.items():
            self._registry.register(_CallbackFamily(name, documentation, self._model, value))

    def record_request(
        self, *, tenant: str, path: str, code: int, outcome: str, seconds: float, exemplar: dict[str, str]
    ) -> None:
        """Record a request that has ended, after `seconds`."""
        labels = (*self._model, tenant)
        self._requests.requests.labels(*labels, path, str(code), outcome).inc(exemplar=exemplar)
        self._requests.duration.labels(*labels).observe(seconds, exemplar)

    def record_generation(
        self,
        *,
        tenant: str,
        first_token_seconds: float | None,
        token_seconds: float | None,
        queue_seconds: float,
        prompt_tokens: int,
        generated_tokens: int,
        exemplar: dict[str, str],
    ) -> None:
        """Record what the engine did for a request: time to first token, per further token and in the queue; tokens."""
        labels = (*self._model, tenant)
        if first_token_seconds is not None:
            self._requests.first_token.labels(*labels).observe(first_token_seconds, exemplar)
        if token_seconds is not None:
            self._requests.per_token.labels(*labels).observe(token_seconds, exemplar)
        self._requests.queue.labels(*labels).observe(queue_seconds, exemplar)
        for kind, count in zip(KINDS, (prompt_tokens, generated_tokens), strict=True):
            self._requests.tokens.labels(*labels, kind).inc(count)

    def record_step(self, *, prompt_tokens: int, generated_tokens: int) -> None:
        """Record the tokens that an engine has counted in one step."""
        self._step_tokens[0].inc(prompt_tokens)
        self._step_tokens[1].inc(generated_tokens)

    def record_start(self, *, prompt_tokens: int, generated_tokens: int) -> None:
        """Record tokens that an engine computed for no request, when it started."""
        self._overhead["start"][0].inc(prompt_tokens)
        self._overhead["start"][1].inc(generated_tokens)

    def record_replay(self, *, prompt_tokens: int, generated_tokens: int) -> None:
        """Record tokens of a request that were computed in vain, or again, because an engine died."""
        self._overhead["replay"][0].inc(prompt_tokens)
        self._overhead["replay"][1].inc(generated_tokens)

    def record_device_time(self, *, tenant: str, seconds: float, cost: float) -> None:
        """Record device time of a request, and its cost."""
        self._costs.device_seconds.labels(*self._model, tenant).inc(seconds)
        self._costs.cost.labels(*self._model, tenant).inc(cost)

    def record_resumption(self) -> None:
        """Record a request that was resumed on another engine."""
        self._engine.resumed.labels(*self._model).inc()

    def record_engine_death(self) -> None:
        """Record an engine that died."""
        self._engine.deaths.labels(*self._model).inc()

    def asgi_app(self) -> Any:
        """An ASGI application that serves the registry."""
        return make_asgi_app(self._registry)


class _CallbackFamily(Collector):
    """A family of one series, whose value a callback returns at each scrape."""

    def __init__(self, name: str, documentation: str, model: list[str], value: Callable[[], float]) -> None:
        self._name, self._documentation, self._model, self._value = name, documentation, model, value

    def describe(self) -> list[Metric]:
        """The family without a value; the registry calls this at registration."""
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        """The family with its current value."""
        family = self._family()
        family.add_metric(self._model, self._value())
        yield family

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        kind = CounterMetricFamily if self._name.endswith("_total") else GaugeMetricFamily
        return kind(self._name, self._documentation, labels=MODEL_LABELS)
