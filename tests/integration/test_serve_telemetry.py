"""Metrics, logs and traces of a real service: one id for each request everywhere, and sums that agree.

HEADWAY_CHARGES sets how many requests are charged, HEADWAY_CHARGE_SEED which; see `make test-charges`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from headway import registry
from headway.objectstore import open_store
from headway.serve.tenants.key_file import KeyStore
from headway.telemetry import Trace
from tests.integration import charges
from tests.integration.serving import NAME, Served, engine_of
from tests.integration.training import DEADLINE, until

pytestmark = pytest.mark.slow

CHARGES = int(os.environ.get("HEADWAY_CHARGES", "100"))
CHARGE_SEED = int(os.environ.get("HEADWAY_CHARGE_SEED", "20261127"))
CLIENTS = 8
"""Requests at a time."""
KINDS = ("prompt", "answer")
GOOD: dict[str, Any] = {"model": NAME, "prompt": "def ", "max_tokens": 8}
ENDS: dict[str, tuple[dict[str, Any], dict[str, str], int, str]] = {
    "whole": (GOOD, {}, 200, "ok"),
    "stream": (GOOD | {"stream": True}, {}, 200, "ok"),
    "named": (GOOD, {"X-Request-ID": "mine-1"}, 200, "ok"),
    "traced": (GOOD, {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}, 200, "ok"),
    "no such model": (GOOD | {"model": "other"}, {}, 404, "refused"),
    "malformed": ({"max_tokens": "many"}, {}, 400, "refused"),
    "wrong key": (GOOD, {"Authorization": "Bearer hw-wrong"}, 401, "refused"),
    "too late": (GOOD | {"max_tokens": 1000, "ignore_eos": True}, {"X-Request-Timeout-Seconds": "0.05"}, 504, "late"),
}
"""How a request can end: what is sent, and what comes."""


class Observed(Served):
    """A service whose spans are written to a file, with keys for two tenants."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.spans = folder / "spans.jsonl"
        keys = KeyStore(folder / "keys.json")
        self.keys = {tenant: keys.add(tenant) for tenant in ("team-a", "team-b")}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HEADWAY_TRACES", str(self.spans))
            super().__init__("traced@1", "--keys", str(keys.path), "--price", "3.6", *options)

    def ask(self, body: dict[str, Any], headers: dict[str, str], tenant: str = "team-a") -> httpx.Response:
        """One request."""
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        return httpx.post(
            url, json=body, headers={"Authorization": f"Bearer {self.keys[tenant]}"} | headers, timeout=DEADLINE
        )

    def samples(self) -> list[Sample]:
        """What it shows, with exemplars."""
        accept = {"Accept": "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"}
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", headers=accept, timeout=DEADLINE).text
        families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        return [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum of a family's series that have these labels."""
        series = [each for each in self.samples() if each.name == name and labels.items() <= each.labels.items()]
        return sum(each.value for each in series)


@pytest.fixture(scope="module")
def observed(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """One service, of a version whose publication belongs to a trace."""
    store = ["--store", str(exported.parent / "store")]
    command = [sys.executable, "-m", "headway.cli", "publish", "served", "--as", "traced", *store]
    subprocess.run(command, check=True, timeout=DEADLINE, env=os.environ | {"TRACEPARENT": str(Trace.new())})
    begun = Observed(tmp_path_factory.mktemp("observed"), *store)
    try:
        begun.await_ready()
        yield begun
    finally:
        begun.clean_up()


def test_what_tenants_are_charged_adds_up(observed: Observed) -> None:
    """Tokens to what they were told they used; seconds to those in which the engine computed."""
    used = {}
    for tenant, count in (("team-a", 3), ("team-b", 2)):
        before = {
            kind: observed.total("headway_serve_tokens_total", tenant=tenant, kind=kind)
            for kind in ("prompt", "answer")
        }
        usages = [observed.ask(GOOD | {"max_tokens": 20 * count}, {}, tenant).json()["usage"] for _ in range(count)]
        used[tenant] = {
            "prompt": before["prompt"] + sum(usage["prompt_tokens"] for usage in usages),
            "answer": before["answer"] + sum(usage["completion_tokens"] for usage in usages),
        }
    for tenant, tokens in used.items():
        for kind, count in tokens.items():
            assert observed.total("headway_serve_tokens_total", tenant=tenant, kind=kind) == count
    charged = observed.total("headway_serve_tenant_device_seconds_total")
    assert charged == pytest.approx(observed.total("headway_serve_device_seconds_total"))
    assert observed.total("headway_serve_tenant_device_seconds_total", tenant="team-b") > 0
    assert observed.total("headway_serve_tenant_cost_total") == pytest.approx(charged * 3.6 / 3600)


def test_what_tenants_are_charged_is_what_the_engine_computed(observed: Observed) -> None:
    """To the token, over requests that end in every way; at last their engine is killed under them.

    vLLM's own metrics begin anew with the next engine; what all engines have counted stands in Headway's.
    """
    requests = charges.drawn(CHARGE_SEED, CHARGES)
    first, second = requests[: 3 * CHARGES // 4], requests[3 * CHARGES // 4 :]
    charge(observed, first)
    for kind, name in zip(KINDS, ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"), strict=True):
        assert observed.total(name) == observed.total("headway_serve_engine_tokens_total", kind=kind) > 0
    with ThreadPoolExecutor(1) as background:
        going = background.submit(charge, observed, second)
        until(lambda: observed.total("headway_serve_computed_requests") > 0, "no request is computed")
        engine_of(observed).kill()
        going.result(DEADLINE * 10)
    assert observed.total("headway_serve_engine_deaths_total") == 1
    assert observed.total("headway_serve_overhead_tokens_total", reason="start", kind="answer") == 2


def charge(observed: Observed, requests: list[charges.Charge]) -> None:
    """Send requests, several at a time; assert that tenants, engines, the log and whole responses agree afterwards."""
    url = f"{observed.url}/v1/completions"
    tenants = ["team-a", "team-b"]
    lines = len(observed.events("request.ended"))
    before = {kind: observed.total("headway_serve_tokens_total", kind=kind) for kind in KINDS}
    with ThreadPoolExecutor(CLIENTS) as pool:
        keys = [observed.keys[tenants[number % 2]] for number in range(len(requests))]
        usages = list(pool.map(charges.send, requests, [url] * len(requests), keys))
    until(
        lambda: observed.total("headway_serve_computed_requests") + observed.total("vllm:num_requests_running") == 0,
        "the engine computes for nobody",
    )
    until(lambda: len(observed.events("request.ended")) == lines + len(requests), "a request is not in the log")
    ended = observed.events("request.ended")[lines:]
    for kind, field in zip(KINDS, ("prompt_tokens", "answer_tokens"), strict=True):
        charged = observed.total("headway_serve_tokens_total", kind=kind)
        overhead = observed.total("headway_serve_overhead_tokens_total", kind=kind)
        assert charged + overhead == observed.total("headway_serve_engine_tokens_total", kind=kind)
        assert charged - before[kind] == sum(line[field] for line in ended)
    told = sum(usage["total_tokens"] for usage in usages if usage)
    assert 0 < told < observed.total("headway_serve_tokens_total")
    shares = observed.total("headway_serve_tenant_device_seconds_total")
    assert shares == pytest.approx(observed.total("headway_serve_device_seconds_total"))
    outcomes = {line["outcome"] for line in ended}
    assert len(requests) < 60 or outcomes >= {"ok", "refused", "late", "gone"}


def test_one_id_leads_to_the_log_line_the_exemplar_and_the_span_of_a_request(
    observed: Observed, exported: Path
) -> None:
    """However it ended: header, log line, exemplar and span; the spans lead to the run that made the model."""
    names: dict[str, str] = {}
    for case, (body, headers, code, outcome) in ENDS.items():
        answer = observed.ask(body, headers)
        assert answer.status_code == code, (case, answer.text)
        names[case] = name = answer.headers["X-Request-ID"]
        labels = {"code": str(code), "outcome": outcome, "path": "/v1/completions"}
        counted = [each for each in observed.samples() if each.name == "headway_serve_requests_total"]
        [series] = [each for each in counted if each.exemplar and name in each.exemplar.labels.values()]
        assert labels.items() <= series.labels.items(), case
    assert names["named"] == "mine-1"
    assert names["traced"] == "ab" * 16
    observed.stop()
    lines = {line["request"]: line for line in observed.events("request.ended")}
    spans = [json.loads(line) for line in observed.spans.read_text(encoding="utf-8").splitlines()]
    [start] = [span for span in spans if span["name"] == "serve.start"]
    model, version = registry.find(open_store(str(exported.parent / "store")), "traced@1")
    trace = Trace.parse(model.manifest(version).trace)
    assert trace
    assert start["trace_id"] == trace.trace_id
    for case, name in names.items():
        [span] = [span for span in spans if span["attributes"].get("headway.request.id") == name]
        assert lines[name]["trace"] == span["trace_id"]
        assert (lines[name]["code"], lines[name]["outcome"]) == ENDS[case][2:]
        assert case == "named" or span["trace_id"] == name
        assert [link["trace_id"] for link in span["links"]] == [trace.trace_id]
    output = observed.log + observed.spans.read_text(encoding="utf-8")
    assert not any(key in output for key in [*observed.keys.values(), "hw-wrong"])
