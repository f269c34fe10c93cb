"""What tenants are charged adds up to what vLLM's own front end counts, in every way that a request can end."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.unit.serve.engines import Engine
from tests.unit.serve.replicas import behind, config
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.utils.async_utils import merge_async_iterators

from headway.serve.engine.failover import Failover
from headway.serve.engine.fair_queue import FairQueue
from headway.serve.engine.token_counts import EngineTokens
from headway.serve.middleware.quota import QuotaEnforcement
from headway.serve.middleware.stack import request_path
from headway.serve.request_context import CURRENT_REQUEST, context_of
from headway.serve.runtime import ReplicaRuntime
from headway.serve.telemetry_sinks import open_sinks
from headway.serve.tenants.key_file import KeyStore

pytestmark = [pytest.mark.xdist_group("vllm"), pytest.mark.timeout(120)]

PATH = "/v1/completions"
TURNS = 50
"""Turns of the event loop in which all tasks get as far as they can."""


class Service:
    """A service with two tenants, around engines whose steps the test makes."""

    def __init__(self, folder: Path) -> None:
        store = KeyStore(folder / "keys.json")
        self.keys = {tenant: store.add(tenant) for tenant in ("team-a", "team-b")}
        for tenant in self.keys:
            store.limit(tenant, tokens=10_000_000)
        settings = config(key_file=store.path, streams=8, write_timeout_seconds=1.0)
        self.runtime = ReplicaRuntime(settings, open_sinks(settings, registry=CollectorRegistry()))
        self.engines = [self.new_engine()]
        queue = FairQueue(self.runtime.capacity)
        self.failover = Failover(self.engines[0], self.next_engine, queue, self.runtime.sinks, AsyncMock())
        self.runtime.engine, self.runtime.application = self.failover, self.application
        path: list[Any] = request_path(self.runtime)
        self.meter = next(each.kwargs["meter"] for each in path if each.cls is QuotaEnforcement)
        self.stack = behind(self.application, *path, outermost=())

    def new_engine(self) -> Engine:
        """Start an engine, and count its tokens."""
        engine = Engine()
        EngineTokens(engine, self.runtime.sinks.metrics)
        return engine

    async def next_engine(self) -> Engine:
        """Start the next engine, which generates a token for nobody, as the replica's does."""
        CURRENT_REQUEST.set(None)
        engine = self.new_engine()
        params = SamplingParams(max_tokens=1, detokenize=False)
        first = asyncio.ensure_future(
            anext(engine.generate({"type": "token", "prompt_token_ids": [0]}, params, "ready"))
        )
        while not engine.core.requests:
            await asyncio.sleep(0)
        engine.core.step()
        await first
        self.engines.append(engine)
        return engine

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond as vLLM's application does: a stream, or a task that is cancelled when the client leaves."""
        body = json.loads((await receive())["body"])
        stream = body.get("stream", False)
        outputs = self._outputs(scope, body, stream=stream)
        media = b"text/event-stream" if stream else b"application/json"
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", media)]}
        if stream:
            await send(start)
            await _until_disconnect(receive, self._send_stream(outputs, send, body.get("fails_after")))
            await send({"type": "http.response.body", "body": b""})
        else:
            await _until_disconnect(receive, self._read(outputs))
            await send(start)
            await send({"type": "http.response.body", "body": b"{}"})

    def _outputs(self, scope: Scope, body: dict[str, Any], *, stream: bool) -> AsyncGenerator[Any, None]:
        params = SamplingParams(
            n=body.get("n", 1),
            max_tokens=body.get("max_tokens", 4),
            seed=body.get("seed"),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY,
        )
        name = context_of(scope).request_id
        generations = [
            self.failover.generate(
                {"type": "token", "prompt_token_ids": list(range(length))}, params.clone(), f"{name}-{number}"
            )
            for number, length in enumerate(body.get("prompts", [3]))
        ]
        return cast("AsyncGenerator[Any, None]", merge_async_iterators(*generations))

    async def _read(self, outputs: AsyncGenerator[Any, None]) -> None:
        async for _ in outputs:
            pass

    async def _send_stream(self, outputs: AsyncGenerator[Any, None], send: Send, fails_after: int | None) -> None:
        count = 0
        async for _ in outputs:
            count += 1
            if count == fails_after:
                raise RuntimeError("the application broke")
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})

    def ask(self, tenant: str = "team-a", headers: dict[str, str] | None = None, **body: Any) -> "Client":
        """Send a request."""
        return Client(self.stack, {"Authorization": f"Bearer {self.keys[tenant]}", **(headers or {})}, body)

    async def step(self, count: int = 1) -> None:
        """Let the newest engine make some steps, and all tasks go on after each."""
        for _ in range(count):
            await turns()
            self.engines[-1].core.step()
        await turns()

    async def kill(self) -> None:
        """Kill the engine; returns when another is there."""
        count = len(self.engines)
        self.engines[-1].core.die()
        async with asyncio.timeout(30):
            while len(self.engines) == count or not self.failover.healthy:
                await asyncio.sleep(0.01)
        await turns()

    def total(self, name: str, **labels: str) -> float:
        """The sum of a family's series with these labels."""
        families = self.runtime.sinks.metrics._registry.collect()  # noqa: SLF001 - the registry of this test
        samples = [each for family in families for each in family.samples if each.name == name]
        return sum(each.value for each in samples if labels.items() <= each.labels.items())

    def charged(self, kind: str, **labels: str) -> float:
        """Tokens of this kind that tenants are charged."""
        return self.total("headway_serve_tokens_total", kind=kind, **labels)

    async def assert_sums(self) -> None:
        """Assert that metrics, quotas and the engines agree, and that nothing is held any more."""
        overhead = {kind: self.total("headway_serve_overhead_tokens_total", kind=kind) for kind in ("prompt", "answer")}
        assert self.charged("prompt") + overhead["prompt"] == sum(each.prompt_tokens for each in self.engines)
        assert self.charged("answer") + overhead["answer"] == sum(each.generated_tokens for each in self.engines)
        for tenant in self.keys:
            tokens = self.charged("prompt", tenant=tenant) + self.charged("answer", tenant=tenant)
            usage = await self.meter.usage(f"tokens/{tenant}")
            assert usage.previous + usage.current == tokens
        shares = self.total("headway_serve_tenant_device_seconds_total")
        assert shares == pytest.approx(self.failover.queue.busy_seconds)
        capacity = self.runtime.capacity
        assert (capacity.running, capacity.waiting, capacity.admitted, capacity.open) == (0, 0, 0, 0)
        assert self.engines[-1].output_processor.request_states == {}
        assert self.engines[-1].core.requests == {}


class Client:
    """A client of the stack, in a task of its own."""

    def __init__(self, stack: ASGIApp, headers: dict[str, str], body: dict[str, Any]) -> None:
        self.received: list[Message] = []
        self._gone, self._reads = asyncio.Event(), asyncio.Event()
        self._reads.set()
        content = json.dumps(body).encode()
        pending: list[Message] = [{"type": "http.request", "body": content}]

        async def receive() -> Message:
            if pending:
                return pending.pop()
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            await self._reads.wait()
            self.received.append(message)

        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": PATH, "headers": raw}
        self.task: asyncio.Future[None] = asyncio.ensure_future(cast("Any", stack)(scope, receive, send))

    def leave(self) -> None:
        """Close the connection."""
        self._gone.set()

    def stop_reading(self) -> None:
        """Keep the connection, and read nothing more."""
        self._reads.clear()

    async def end(self) -> None:
        """Wait until the request is over."""
        with suppress(Exception, asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(self.task), 30)

    @property
    def text(self) -> str:
        """What it has received."""
        return b"".join(each.get("body", b"") for each in self.received).decode()


async def _until_disconnect(receive: Receive, work: Any) -> None:
    """Work until the client leaves; as in vLLM, nobody waits for the work that is cancelled then."""

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, listening = asyncio.ensure_future(work), asyncio.ensure_future(listen())
    done, pending = await asyncio.wait([working, listening], return_when=asyncio.FIRST_COMPLETED)
    for each in pending:
        each.cancel()
    if working in done:
        working.result()


async def turns() -> None:
    """Let all tasks go on as far as they can."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def whole(service: Service) -> tuple[int, int]:
    """Responses that are complete: one, a stream, two choices, three prompts, and both."""
    clients = [
        service.ask(),
        service.ask(stream=True),
        service.ask(n=2),
        service.ask(prompts=[3, 5, 600]),
        service.ask(prompts=[3, 5], n=3, stream=True, max_tokens=2),
        service.ask("team-b", max_tokens=1),
    ]
    await service.step(5)
    for each in clients:
        await each.end()
    return 3 + 3 + 2 * 3 + 608 + 3 * 8 + 3, 4 + 4 + 8 + 12 + 12 + 1


async def gone(service: Service) -> tuple[int, int]:
    """Clients that leave: with and without a stream, with several choices and prompts, before the first token."""
    clients = [service.ask(max_tokens=99, **body) for body in BODIES]
    await service.step(5)
    late = service.ask(max_tokens=99)
    await turns()
    for each in [*clients, late]:
        each.leave()
        await each.end()
    await service.step(3)
    return PROMPTS, 5 * CHOICES


async def late(service: Service) -> tuple[int, int]:
    """Requests whose deadline passes."""
    headers = {"X-Request-Timeout-Seconds": "1"}
    clients = [service.ask(headers=headers, max_tokens=99, **body) for body in BODIES]
    await service.step(7)
    for each in clients:
        await each.end()
        assert "deadline_exceeded" in each.text
    await service.step(3)
    return PROMPTS, 7 * CHOICES


async def unread(service: Service) -> tuple[int, int]:
    """Streams that nobody reads."""
    clients = [service.ask(max_tokens=99, **body, stream=True) for body in BODIES if "stream" not in body]
    await service.step(2)
    for each in clients:
        each.stop_reading()
    await service.step(4)
    for each in clients:
        await each.end()
    await service.step(3)
    return 3 + 6 + 608, 6 * (1 + 2 + 3)


async def cancelled(service: Service) -> tuple[int, int]:
    """The server cancels requests."""
    clients = [service.ask(max_tokens=99, **body) for body in BODIES]
    await service.step(3)
    for each in clients:
        each.task.cancel()
        await each.end()
    await service.step(3)
    return PROMPTS, 3 * CHOICES


async def broken(service: Service) -> tuple[int, int]:
    """The application fails in the middle of a stream."""
    client = service.ask(prompts=[3, 5], stream=True, max_tokens=99, fails_after=3)
    await service.step(6)
    await client.end()
    assert "internal_error" in client.text
    return 8, 4  # the third output is the first one of the second step


async def queued(service: Service) -> tuple[int, int]:
    """Requests that wait for a slot; some of them leave before they have one."""
    clients = [service.ask(max_tokens=2) for _ in range(14)]
    await service.step(1)
    assert service.runtime.capacity.waiting == 5
    for each in clients[-3:]:
        each.leave()
        await each.end()
    await service.step(4)
    for each in clients:
        await each.end()
    return 11 * 3, 11 * 2


async def refused(service: Service) -> tuple[int, int]:
    """Requests that do not reach the engine."""
    clients = [service.ask(n=1000), service.ask(headers={"Authorization": "Bearer hw-wrong"})]
    for each in clients:
        await each.end()
    return 0, 0


async def restarted(service: Service) -> tuple[int, int]:
    """The engine dies under requests that have sent nothing: the next one begins anew."""
    clients = [service.ask(max_tokens=6, **body) for body in BODIES if not body.get("stream")]
    await service.step(4)
    await service.kill()
    await service.step(8)
    for each in clients:
        await each.end()
    return 3 + 6 + 608, 6 * (1 + 2 + 3)


async def restarted_and_late(service: Service) -> tuple[int, int]:
    """The engine dies, and the next one is interrupted before it got as far: a prompt counts once."""
    client = service.ask(max_tokens=60)
    await service.step(20)
    await service.kill()
    await service.step(2)
    client.leave()
    await client.end()
    return 3, 2


async def extended(service: Service) -> tuple[int, int]:
    """The engine dies under a stream whose tokens become a part of the prompt."""
    client = service.ask(max_tokens=9, stream=True)
    await service.step(4)
    await service.kill()
    await service.step(9)
    await client.end()
    assert client.text.count("data: 1") == 9
    return 3, 9


async def repeated(service: Service) -> tuple[int, int]:
    """The engine dies under a stream that is computed again, whole or until its client leaves."""
    clients = [service.ask(max_tokens=9, stream=True, seed=1) for _ in range(2)]
    await service.step(4)
    await service.kill()
    await service.step(2)
    clients[0].leave()
    await clients[0].end()
    await service.step(9)
    await clients[1].end()
    assert clients[1].text.count("data: 1") == 9
    return 6, 4 + 9


async def dead(service: Service) -> tuple[int, int]:
    """The engine dies under a stream that no other can continue."""
    client = service.ask(max_tokens=9, stream=True, n=2)
    await service.step(4)
    await service.kill()
    await client.end()
    return 6, 8


async def dead_with_unread_outputs(service: Service) -> tuple[int, int]:
    """The engine dies with outputs that no stream has read: they are lost, and computed again."""
    client = service.ask(max_tokens=9, stream=True)
    await service.step(2)
    for _ in range(3):
        service.engines[-1].core.step()
    await service.kill()
    await service.step(9)
    await client.end()
    assert client.text.count("data: 1") <= 9
    return 3, 9


async def computing(service: Service) -> None:
    """Requests end while the engine computes on, so that each of their moments is hit by some step."""

    async def compute() -> None:
        while True:
            service.engines[-1].core.step()
            await asyncio.sleep(0)

    computation = asyncio.ensure_future(compute())
    for number, body in enumerate(BODIES * 4):
        headers = {"X-Request-Timeout-Seconds": "0.02"} if number % 2 else {}
        client = service.ask(headers=headers, max_tokens=100_000, **body)
        await asyncio.sleep(0.01)
        if not headers:
            client.leave()
        await client.end()
    computation.cancel()


BODIES: list[dict[str, Any]] = [{}, {"stream": True}, {"n": 2}, {"prompts": [3, 5, 600]}, {"n": 2, "stream": True}]
PROMPTS, CHOICES = 3 + 3 + 6 + 608 + 6, 1 + 1 + 2 + 3 + 2
"""Tokens of their prompts, once for each choice; and their choices."""
ENDS: list[Callable[[Service], Awaitable[tuple[int, int] | None]]] = [
    whole,
    gone,
    late,
    unread,
    cancelled,
    broken,
    queued,
    refused,
    restarted,
    restarted_and_late,
    extended,
    repeated,
    dead,
    dead_with_unread_outputs,
    computing,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda each: each.__name__)
def test_what_the_engine_computed_is_charged(tmp_path: Path, end: Callable[[Service], Awaitable[Any]]) -> None:
    """To the token, in metrics and quotas; what an engine computes again is charged to nobody."""

    async def scenario() -> None:
        service = Service(tmp_path)
        tokens = await asyncio.wait_for(end(service), 60)
        await turns()
        await service.assert_sums()
        charges = (service.charged("prompt"), service.charged("answer"))
        assert charges == tokens or (tokens is None and min(charges) > 0)
        service.failover._monitor_task.cancel()  # noqa: SLF001 - it would run for ever

    asyncio.run(scenario())


def test_ways_to_end_add_up_together(tmp_path: Path) -> None:
    """One after the other on one service, whose engine dies in between."""

    async def scenario() -> None:
        service = Service(tmp_path)
        total = [0, 0]
        for end in (whole, gone, late, extended, unread, cancelled, repeated, whole):
            prompt, answer = await asyncio.wait_for(end(service), 60)
            total = [total[0] + prompt, total[1] + answer]
            await turns()
            await service.assert_sums()
        assert [service.charged("prompt"), service.charged("answer")] == total
        service.failover._monitor_task.cancel()  # noqa: SLF001 - it would run for ever

    asyncio.run(scenario())
