"""What is offered: the paths and methods that a client may ask for. vLLM's application has more, and gets more.

Some of it is not a tenant's (`/scale_elastic_ep` restarts engines), some passes what is counted here, some keeps what
one tenant said where another may ask for it (`/v1/responses/{id}`). So whatever is not named here does not exist.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from headway.serve.refusal import refusal

OFFERED = {
    "/v1/completions": "POST",
    "/v1/chat/completions": "POST",
    "/v1/responses": "POST",
    "/v1/embeddings": "POST",
    "/v1/models": "GET",
    "/tokenize": "POST",
    "/detokenize": "POST",
    "/health": "GET",
    "/ping": "GET",
    "/version": "GET",
    "/metrics": "GET",
    "/openapi.json": "GET",
    "/-/healthz": "GET",
    "/-/routes": "GET",
}
"""The method of each path: OpenAI's API as far as the engine has it, and what machines ask. The one list of it."""


class Routes:
    """The link that lets through what is offered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404 or 405."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        offered = OFFERED.get(path)
        if offered is None:
            told = f"There is no {path[:128]} here."
            answer = refusal(404, told, kind="invalid_request_error", code="unknown_url")
        elif method != offered:
            told = f"{path} is asked by {offered}, not by {method}."
            answer = refusal(
                405,
                told,
                kind="invalid_request_error",
                code="method_not_allowed",
                headers={"Allow": offered},
            )
        else:
            await self.app(scope, receive, send)
            return
        await answer(scope, receive, send)
