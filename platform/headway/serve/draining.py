"""A service that was asked to stop accepts nothing more, while what is in flight comes to its end."""

from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.refusal import refusal

OPEN = ("/metrics",)
"""What is answered to the end."""
IN_FLIGHT = "X-Requests-In-Flight"
"""Header: what is still to come to its end, for whoever keeps the service."""
RETRY_SECONDS = 5
"""When a client may try again, elsewhere or here [s]."""


class Draining:
    """The link that lets nobody in any more once `marker` exists; `/health` then says that it is not ready, too."""

    def __init__(self, app: ASGIApp, marker: Path) -> None:
        self.app, self.marker = app, marker
        self.flying = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 503."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        if self.marker.exists():
            answer = refusal(
                503,
                "The service is stopping. Try again.",
                kind="service_unavailable_error",
                code="stopping",
                headers={"Retry-After": str(RETRY_SECONDS), "Connection": "close", IN_FLIGHT: str(self.flying)},
            )
            await answer(scope, receive, send)
            return
        self.flying += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.flying -= 1
