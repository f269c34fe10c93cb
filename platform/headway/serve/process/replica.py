"""Replica: a Ray Serve deployment with one engine; it listens at the service's port itself."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.serve import patches
from headway.serve.config import ServeConfig
from headway.serve.engine.failover import Failover
from headway.serve.engine.fair_queue import FairQueue
from headway.serve.engine.vllm_engine import (
    build_application,
    engine_arguments,
    generate_first_token,
    set_engine_environment,
    start_engine,
)
from headway.serve.process.startup_progress import StartupProgress
from headway.serve.runtime import replica_runtime

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


class Replica:
    """The deployment's class. Ray Serve creates it in its own process, and then gets its ASGI application."""

    async def __init__(self, config: ServeConfig, progress_file: Path) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Start the engine; returns when it has generated a token."""
        start, progress = time.time(), StartupProgress(progress_file)
        self.runtime = replica_runtime()
        patches.reuse_port()
        set_engine_environment(config)
        self.arguments = engine_arguments(config)
        progress.done("imports")
        capacity, sinks = self.runtime.capacity, self.runtime.sinks
        self.queue = FairQueue(capacity)
        engine = await start_engine(self.arguments, self.queue.update_cache_usage)
        progress.done("engine")
        await generate_first_token(engine)
        progress.done("first token")
        self.runtime.engine = self.engine = Failover(engine, self._start_next_engine, self.queue, sinks)
        sinks.metrics.register_engine(
            busy_seconds=lambda: self.queue.busy_seconds,
            computed_requests=lambda: capacity.running,
            waiting_requests=lambda: capacity.waiting,
            cache_usage=lambda: self.queue.cache_usage,
        )
        stages = {
            f"headway.start.{name.replace(' ', '_')}_seconds": seconds for name, seconds in progress.seconds.items()
        }
        sinks.spans.record("serve.start", start, time.time(), parent=sinks.run_trace, attributes=stages)

    async def _start_next_engine(self) -> "AsyncLLM":
        """Start another engine; returns when it has generated a token."""
        engine = await start_engine(self.arguments, self.queue.update_cache_usage)
        await generate_first_token(engine)
        return engine

    async def __serve_build_asgi_app__(self) -> Any:
        """Build the OpenAI application. Ray Serve wraps it with `middleware_stack` itself."""
        self.runtime.application = await build_application(self.engine, self.arguments)
        return self.runtime.application

    async def check_health(self) -> None:
        """Check that an engine is live, or that its replacement is starting.

        Raises:
            RuntimeError: neither is. Not vLLM's own error: Ray Serve's controller would import vLLM to unpickle it.
        """
        if self.engine.failure is not None:
            raise RuntimeError(f"the engine is dead: {self.engine.failure}")

    def __del__(self) -> None:
        """Export the last spans; Ray Serve calls it when it stops the replica."""
        self.runtime.sinks.spans.close()
