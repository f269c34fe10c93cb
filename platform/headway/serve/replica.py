"""The one copy of the model on this node: a Ray Serve deployment that listens by itself, with the engine behind it."""

from pathlib import Path
from typing import Any

from headway.serve import engine as engines
from headway.serve.endpoint import Endpoint
from headway.serve.startup import Startup


class Replica:
    """Ray Serve builds it in a process of its own, and asks it for its ASGI application when it is ready."""

    async def __init__(self, endpoint: Endpoint, startup: Path) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Start the engine; returns when it has generated a token."""
        stage = Startup(startup)
        engines.settle(endpoint)
        self.arguments = engines.arguments(endpoint)
        stage.done("imports")
        self.engine = engines.start(self.arguments)
        stage.done("engine")
        await engines.first_token(self.engine)
        stage.done("first token")

    async def __serve_build_asgi_app__(self) -> Any:
        """The OpenAI application. What stands in front of it (`chain`) Serve adds by itself."""
        return await engines.application(self.engine, self.arguments)

    async def check_health(self) -> None:
        """See that the engine lives.

        Raises:
            RuntimeError: it does not. Not vLLM's own error: Serve's controller would import vLLM to read it.
        """
        if self.engine.errored:
            raise RuntimeError("the engine is dead")
