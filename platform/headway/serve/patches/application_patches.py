"""Patches of vLLM's application: its models of requests, its middleware and its errors."""

from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from fastapi import FastAPI


def cache_environment() -> None:
    """Make vLLM read its environment variables once, as its own server does.

    Why: otherwise it reads the environment for each token. Unnecessary once `build_app` or the engine does it.
    """
    from vllm.envs import enable_envs_cache

    enable_envs_cache()


def remove_middleware(app: "FastAPI") -> None:
    """Remove the middleware of vLLM's application; it builds its stack again, with the present exception handlers.

    Why: Headway's middleware does CORS and metrics, and `build_app` has built the stack already, with the old handlers.
    Unnecessary once `build_app` takes middleware and exception handlers.
    """
    app.user_middleware.clear()
    app.middleware_stack = None


def ignore_server_stop(app: "FastAPI") -> None:
    """Give vLLM's application a server that it cannot stop.

    Why: its error handler stops `app.state.server` when the engine is dead; here another engine replaces it.
    Unnecessary once the handler leaves it to whoever started the application.
    """
    app.state.server = Namespace(should_exit=False)


def shorten_errors(shorten: Callable[[str], str]) -> None:
    """Make vLLM shorten the message of an error before it does anything with it.

    Why: messages repeat what was sent, and vLLM searches them for paths, in the event loop, by an expression that takes
    minutes for 64 KiB of `/a/a/a`. Unnecessary once messages are bounded, or the search is linear.
    """
    from vllm.entrypoints.serve.exception_handling import error_response
    from vllm.entrypoints.serve.exception_handling.handlers import http
    from vllm.entrypoints.serve.exception_handling.utils import sanitize_message

    for module in (error_response, http):
        module.sanitize_message = lambda message: sanitize_message(shorten(message))  # type: ignore[attr-defined]


def stop_at_first_message() -> None:
    """Make vLLM's models of requests stop at the first message or item that is wrong.

    Why: they try dozens of models on each, and collect hundreds of problems: 700 MiB and seconds for a thousand empty
    items of `/v1/responses`. It must run before vLLM's routes are imported, which copy the models. Unnecessary once
    vLLM bounds what it collects.
    """
    from pydantic import FailFast
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponseInputOutputItem, ResponsesRequest
    from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest

    class HashableFailFast(FailFast):
        __hash__ = object.__hash__  # a union needs it

    items: Any = Annotated[list[ResponseInputOutputItem], HashableFailFast()]
    ResponsesRequest.model_fields["input"].annotation = str | items
    models: tuple[Any, ...] = (ChatCompletionRequest, TokenizeChatRequest)
    for model in models:
        model.model_fields["messages"].metadata.append(FailFast())
    for model in (*models, ResponsesRequest):
        model.model_rebuild(force=True)
