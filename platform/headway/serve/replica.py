"""The one copy of the model on this node: a Ray Serve deployment that listens by itself, with the engine behind it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from headway.serve import engine as engines
from headway.serve.config import ServeConfig
from headway.serve.failover import Failover
from headway.serve.fair_queue import FairQueue
from headway.serve.fallback import Fallback
from headway.serve.listening import reuse_address
from headway.serve.serve_bypass import ServeBypass
from headway.serve.startup import Startup
from headway.serve.telemetry_sinks import telemetry_sinks

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


class Replica:
    """Ray Serve builds it in a process of its own, and asks it for its ASGI application when it is ready."""

    async def __init__(self, endpoint: ServeConfig, startup: Path) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Start the engine; returns when it has generated a token."""
        stage, began = Startup(startup), time.time()
        self.endpoint = endpoint
        reuse_address()
        engines.set_engine_environment(endpoint)
        self.arguments = engines.arguments(endpoint)
        stage.done("imports")
        self.gate = FairQueue(endpoint.streams + endpoint.streams // 8)  # whose place gets free is not to be waited for
        engine = await engines.start(self.arguments, self.gate.told)
        stage.done("engine")
        await engines.first_token(engine)
        stage.done("first token")
        self.engine = Failover(engine, self._successor, self.gate, told := telemetry_sinks())
        told.metrics.engine(
            busy_seconds=lambda: self.gate.busy_seconds,
            inside=lambda: self.gate.inside,
            waiting=lambda: self.gate.waiting,
            cache_usage=lambda: self.gate.cache_usage,
        )
        stages = {f"headway.start.{name.replace(' ', '_')}_seconds": seconds for name, seconds in stage.seconds.items()}
        told.spans.record("serve.start", began, time.time(), parent=told.origin, attributes=stages)

    async def _successor(self) -> "AsyncLLM":
        """The next engine, ready."""
        engine = await engines.start(self.arguments, self.gate.told)
        await engines.first_token(engine)
        return engine

    async def __serve_build_asgi_app__(self) -> Any:
        """The OpenAI application. What stands in front of it (`chain`) Serve adds by itself."""
        app: ASGIApp = await engines.application(self.engine, self.arguments)
        if url := self.endpoint.fallback:
            app = Fallback(app, model=self.endpoint.name, url=url, well=lambda: self.engine.well)
        ServeBypass.application = app
        return app

    async def check_health(self) -> None:
        """See that an engine lives, or is about to.

        Raises:
            RuntimeError: none does. Not vLLM's own error: Serve's controller would import vLLM to read it.
        """
        if self.engine.lost is not None:
            raise RuntimeError(f"the engine is dead: {self.engine.lost}")

    def __del__(self) -> None:
        """Hand over the last spans; Serve calls it when it takes the replica down."""
        telemetry_sinks().spans.close()
