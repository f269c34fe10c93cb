"""Serving's metrics: every family that a served model shows, declared once. Loads prometheus_client.

They lie in the process's default registry, where vLLM's own are: one scrape gets both. Histograms carry an exemplar,
which names the request and its trace; they are shown to whoever asks for OpenMetrics.
"""

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Info, make_asgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
SERVED = ("model", "version", "role", "device", "quantization")
"""What every series says of the model."""


class ServingMetrics:
    """How a model is served, in the words of its clients and in those of whoever pays for it."""

    def __init__(self, registry: CollectorRegistry = REGISTRY, **served: str) -> None:
        """`served` are the values of `SERVED`."""
        self._registry = registry
        of_tenant = (*SERVED, "tenant")
        self._served = [served[name] for name in SERVED]
        self._requests = Counter(
            "headway_serve_requests_total",
            "Requests, by status and how they ended: ok, refused, failed, late (for their deadline), gone (the client)",
            [*of_tenant, "path", "code", "outcome"],
            registry=registry,
        )
        self._duration = Histogram(
            "headway_serve_request_duration_seconds",
            "From arrival to the last byte",
            of_tenant,
            buckets=SECONDS,
            registry=registry,
        )
        self._first_token = Histogram(
            "headway_serve_time_to_first_token_seconds",
            "From arrival to the first token, of answers that had one",
            of_tenant,
            buckets=SECONDS,
            registry=registry,
        )
        self._per_token = Histogram(
            "headway_serve_time_per_output_token_seconds",
            "Mean time between the tokens of an answer, of answers that had several",
            of_tenant,
            buckets=TOKEN_SECONDS,
            registry=registry,
        )
        self._queue = Histogram(
            "headway_serve_queue_seconds",
            "How long requests waited for the engine",
            of_tenant,
            buckets=SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "headway_serve_tokens_total", "Tokens, by kind: prompt, answer", [*of_tenant, "kind"], registry=registry
        )
        self._busy = Counter(
            "headway_serve_tenant_device_seconds_total",
            "Seconds of the device, shared equally among those whose requests it computed at a time",
            of_tenant,
            registry=registry,
        )
        self._cost = Counter(
            "headway_serve_tenant_cost_total", "Device seconds at their price", of_tenant, registry=registry
        )
        self._resumed = Counter(
            "headway_serve_resumed_total", "Requests that outlived their engine", SERVED, registry=registry
        )
        self._deaths = Counter(
            "headway_serve_engine_deaths_total", "Engines that died under the service", SERVED, registry=registry
        )
        for each in (self._resumed, self._deaths):
            each.labels(*self._served)
        Info("headway_serve_model", "What is served", SERVED, registry=registry).labels(*self._served).info({})

    def engine(
        self,
        *,
        busy_seconds: Callable[[], float],
        inside: Callable[[], float],
        waiting: Callable[[], float],
        cache_usage: Callable[[], float],
    ) -> None:
        """Show what these say at the moment of a scrape."""
        shown = {
            "headway_serve_device_seconds_total": ("Seconds in which the engine computed", busy_seconds),
            "headway_serve_computed_requests": ("Requests that are computed", inside),
            "headway_serve_waiting_requests": ("Requests that wait for the engine", waiting),
            "headway_serve_cache_usage_ratio": ("Share of the engine's KV cache that is taken", cache_usage),
        }
        for name, (meaning, value) in shown.items():
            self._registry.register(_Shown(name, meaning, self._served, value))

    def ended(
        self,
        *,
        tenant: str,
        path: str,
        code: int,
        outcome: str,
        seconds: float,
        exemplar: dict[str, str],
    ) -> None:
        """A request has ended."""
        of_tenant = (*self._served, tenant)
        self._requests.labels(*of_tenant, path, str(code), outcome).inc(exemplar=exemplar)
        self._duration.labels(*of_tenant).observe(seconds, exemplar)

    def answered(
        self,
        *,
        tenant: str,
        first: float | None,
        each: float | None,
        queued: float,
        prompt_tokens: int,
        generated_tokens: int,
        exemplar: dict[str, str],
    ) -> None:
        """The engine has worked on a request: to its `first` token, for `each` of the others, after it had `queued`."""
        of_tenant = (*self._served, tenant)
        if first is not None:
            self._first_token.labels(*of_tenant).observe(first, exemplar)
        if each is not None:
            self._per_token.labels(*of_tenant).observe(each, exemplar)
        self._queue.labels(*of_tenant).observe(queued, exemplar)
        self._tokens.labels(*of_tenant, "prompt").inc(prompt_tokens)
        self._tokens.labels(*of_tenant, "answer").inc(generated_tokens)

    def charged(self, *, tenant: str, seconds: float, cost: float) -> None:
        """A request took so many seconds of the device."""
        self._busy.labels(*self._served, tenant).inc(seconds)
        self._cost.labels(*self._served, tenant).inc(cost)

    def resumed(self) -> None:
        """A request goes on with another engine."""
        self._resumed.labels(*self._served).inc()

    def died(self) -> None:
        """An engine died."""
        self._deaths.labels(*self._served).inc()

    def application(self) -> Any:
        """The ASGI application that shows them, and what else is in the registry."""
        return make_asgi_app(self._registry)


class _Shown(Collector):
    """A family of one series, whose value is asked for."""

    def __init__(self, name: str, meaning: str, served: list[str], value: Callable[[], float]) -> None:
        self._name, self._meaning, self._served, self._value = name, meaning, served, value

    def describe(self) -> list[Metric]:
        """What the registry looks at for names: without a value, which is not there yet."""
        return [self._family()]

    def collect(self) -> Iterator[Metric]:
        """The one series."""
        family = self._family()
        family.add_metric(self._served, self._value())
        yield family

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        kind = CounterMetricFamily if self._name.endswith("_total") else GaugeMetricFamily
        return kind(self._name, self._meaning, labels=SERVED)
