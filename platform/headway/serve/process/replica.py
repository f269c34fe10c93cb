"""Replica: a Ray Serve deployment with one engine; it listens at the service's port itself."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from headway.serve.engine.failover import Failover
from headway.serve.engine.fair_queue import FairQueue
from headway.serve.engine.grammar_trial import GrammarTrial
from headway.serve.engine.vllm_engine import (
    build_application,
    engine_arguments,
    generate_first_token,
    process_context,
    set_engine_environment,
    start_engine,
)
from headway.serve.patches import ray_patches
from headway.serve.runtime import replica_runtime
from headway.telemetry.stage_timer import StageTimer

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


class Replica:
    """The deployment's class. Ray Serve creates it in its own process, and then gets its ASGI application."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Start the engine; returns when it has generated a token."""
        self.runtime = replica_runtime()
        self._stages = StageTimer()
        capacity, sinks = self.runtime.capacity, self.runtime.sinks
        ray_patches.reuse_port()
        ray_patches.keep_replica_local()
        self._adapt_http_server()
        set_engine_environment(self.runtime.config)
        self.arguments = engine_arguments(self.runtime.config)
        self._stage_done("imports")
        self.queue = FairQueue(capacity)
        engine = await start_engine(self.arguments, self.queue.update_cache_usage, sinks.metrics)
        self._stage_done("engine")
        await generate_first_token(engine)
        self._stage_done("first token")
        trial = GrammarTrial(engine.vllm_config, self.runtime.config, process_context())
        self.runtime.engine = self.engine = Failover(
            engine, self._start_next_engine, self.queue, sinks, trial.require_compilable
        )
        sinks.metrics.register_engine(
            busy_seconds=lambda: self.queue.busy_seconds,
            computed_requests=lambda: capacity.running,
            waiting_requests=lambda: capacity.waiting,
            cache_usage=lambda: self.queue.cache_usage,
        )
        stages = {
            f"headway.start.{name.replace(' ', '_')}_seconds": seconds for name, seconds in self._stages.seconds.items()
        }
        sinks.spans.record("serve.start", self._stages.start, time.time(), parent=sinks.run_trace, attributes=stages)

    def _adapt_http_server(self) -> None:
        """Bound what clients send before there is a request, and let the service close the HTTP server."""
        from headway.serve.process.http_protocol import BoundedProtocol, HeadLimits  # imports uvicorn

        config = self.runtime.config
        limits = HeadLimits(
            max_bytes=config.max_head_bytes,
            max_fields=config.max_head_fields,
            seconds=config.head_timeout_seconds,
            max_open=config.max_open_heads,
            max_connections=config.connections_per_address,
        )

        def keep(close: Callable[[], None]) -> None:
            self.runtime.close_server = close

        ray_patches.adapt_http_server(partial(BoundedProtocol, limits=limits), keep)

    def _stage_done(self, stage: str) -> None:
        """End a stage of the start now, and report it to the service."""
        self._stages.done(stage)
        self.runtime.sinks.report_stage(stage, round(self._stages.seconds[stage], 3))

    async def _start_next_engine(self) -> "AsyncLLM":
        """Start another engine; returns when it has generated a token."""
        engine = await start_engine(self.arguments, self.queue.update_cache_usage, self.runtime.sinks.metrics)
        await generate_first_token(engine)
        return engine

    async def __serve_build_asgi_app__(self) -> Any:
        """Build the OpenAI application. Ray Serve wraps it with `middleware_stack` itself."""
        self.runtime.application = await build_application(self.engine, self.arguments, self.runtime.sinks.log)
        return self.runtime.application

    async def check_health(self) -> None:
        """Check that an engine is live, or that its replacement is starting.

        Raises:
            RuntimeError: neither is. Not vLLM's own error: Ray Serve's controller would import vLLM to unpickle it.
        """
        if self.engine.failure is not None:
            raise RuntimeError(f"the engine is dead: {self.engine.failure}")
