"""Patches: every place where Headway changes Ray or vLLM, or depends on a part of them that is not documented.

Each function is one patch; importing the module applies none. `tests/contract/test_patches.py` pins the versions and
the source that each assumes, so an upgrade fails there first.
"""

import asyncio
import signal
import socket
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from starlette.types import ASGIApp

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.config import VllmConfig
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.engine.async_llm import AsyncLLM

POLL_SECONDS = 0.02
"""Interval between looks at a server that is closing [s]."""


def ray_init_options(folder: Path) -> dict[str, Any]:
    """Options of `ray.init` that Ray calls hidden: a node that lives in `folder` and listens at the loopback only.

    Why: `/tmp/ray` is shared by all users of a machine, and by default Ray's ports listen at every address.
    Unnecessary once Ray documents options for both.
    """
    return {"_temp_dir": str(folder), "_node_ip_address": "127.0.0.1"}


def use_process_groups() -> None:
    """Make Ray start each process of its node in a process group of its own.

    Why: shells, terminals and `timeout` signal the whole group of a command. Ray's processes would die at once, and
    with them the requests in flight. Unnecessary once Ray has an option for it.
    """
    from ray._private import services

    services.ConsolePopen = partial(subprocess.Popen, process_group=0)  # type: ignore[assignment, misc]


def reuse_port() -> None:
    """Make Ray Serve's HTTP server in this process bind with `SO_REUSEADDR`.

    Why: Ray Serve's replica binds without it. Then no service could start at the port for a minute after one has ended,
    or while one of its clients keeps a connection open. Ray Serve's own option would set `SO_REUSEPORT`, with which two
    services could share a port and split the requests. Unnecessary once Ray Serve binds as other servers do.
    """
    from ray.serve._private import http_util, replica

    start = http_util.start_asgi_http_server

    async def start_with_reuse(*args: Any, **kwargs: Any) -> Any:
        return await start(*args, **{**kwargs, "enable_so_reuseport": True})

    def set_reuse_address(listener: socket.socket) -> bool:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return True

    http_util.set_socket_reuse_port = set_reuse_address  # type: ignore[assignment]  # another name for the socket
    replica.start_asgi_http_server = start_with_reuse  # type: ignore[attr-defined]


def adapt_http_server(
    protocol: Callable[..., asyncio.Protocol], on_start: Callable[[Callable[[], None]], None]
) -> None:
    """Make Ray Serve's HTTP server in this process speak `protocol`, and pass `on_start` the function that closes it.

    That function may be called in any thread. It closes the listener, waits until all responses are sent, and returns.
    Why: uvicorn's protocol for httptools limits neither size nor duration of a head, and Ray Serve has no option for
    another one. And to stop a replica by Ray Serve takes up to a minute. Unnecessary once uvicorn has such limits, and
    once Ray Serve stops a replica that serves no request at once.
    """
    from ray.serve._private import replica

    start = replica.start_asgi_http_server  # type: ignore[attr-defined]

    async def start_adapted(*args: Any, **kwargs: Any) -> Any:
        task, server = await start(*args, **kwargs)
        server.config.http = cast("Any", protocol)  # it is read once the task runs

        def close() -> None:
            server.should_exit = True
            while not task.done():
                time.sleep(POLL_SECONDS)

        on_start(close)
        return task, server

    replica.start_asgi_http_server = start_adapted  # type: ignore[attr-defined]


def bypass_request_handler(handler: ASGIApp, application: ASGIApp | None) -> ASGIApp:
    """Choose what responds to a request: the application itself, or Ray Serve's `handler` until there is one.

    Why: the handler would count, log and name each request and watch its connection; other middleware or vLLM does all
    of it. Ray Serve then counts nothing, so the replica itself waits for requests in flight before it closes the
    HTTP server, which waits for requests that arrive after that. It relies on Ray Serve putting the
    middleware of its HTTP proxy callback around the handler of a replica. Unnecessary once a replica with direct
    ingress costs a request nothing but the application.
    """
    return application or handler


def use_forkserver() -> None:
    """Make vLLM fork its engine from this process's forkserver.

    Why: otherwise vLLM starts a new interpreter, which imports everything again. No setting prevents it: the platform
    sets the start method while it builds the configuration, and a Ray actor forces it. Unnecessary once
    `VLLM_WORKER_MULTIPROC_METHOD=forkserver` is respected.
    """
    import vllm.utils.system_utils
    import vllm.v1.engine.utils
    import vllm.v1.executor.multiproc_executor

    for module in (vllm.utils.system_utils, vllm.v1.engine.utils, vllm.v1.executor.multiproc_executor):
        module.get_mp_context = lambda: get_context("forkserver")  # type: ignore[attr-defined]


def enable_amx() -> None:
    """Let this process use AMX tiles, by a function of torch that is private.

    Why: Linux lets a process use them only after a request, which a fork does not inherit; without it, the first tile
    instruction kills an engine that was forked. Unnecessary once torch does it after a fork.
    """
    import torch

    torch.cpu._init_amx()  # noqa: SLF001 - there is no public way


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


def keep_renderer(engine: "AsyncLLM") -> None:
    """Take the renderer from an engine, so that `shutdown` leaves it open.

    Why: the application keeps the renderer of the first engine and still uses it when that engine is dead.
    Unnecessary once the application has a renderer of its own.
    """
    engine.renderer = None  # type: ignore[assignment]  # `shutdown` checks it


def report_death(engine: "AsyncLLM") -> None:
    """Raise `EngineDeadError` in all streams of an engine.

    Why: `shutdown` cancels the task that reports the death to the streams; unreported, they would wait forever.
    Unnecessary once `shutdown` reports it.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    engine.output_processor.propagate_error(EngineDeadError())


def report_tokens(engine: "AsyncLLM", open_count: Callable[[str], Any]) -> None:
    """Report the tokens of each request of an engine, step by step, in the place where vLLM adds them to its metrics.

    `open_count` gets the id that a caller has given to a request, in the caller's own task, and returns a `TokenCount`.

    Why: outputs do not show what an engine has computed. A response that is no stream is one output at its end, so an
    aborted one shows nothing, and outputs that nobody has read are lost when the engine dies. Unnecessary once vLLM
    tells the tokens of a request that was aborted.
    """
    processor = engine.output_processor
    add_request, update_stats = processor.add_request, processor._update_stats_from_output  # noqa: SLF001 - see above

    def add_with_count(request: Any, *args: Any, **kwargs: Any) -> None:
        add_request(request, *args, **kwargs)
        state: Any = processor.request_states[request.request_id]
        state.headway_count = open_count(request.external_req_id)

    def update_and_count(state: Any, output: Any, *args: Any) -> None:
        prefill = output.prefill_stats if state.is_prefilling else None
        state.headway_count.add(prefill.num_prompt_tokens if prefill else 0, len(output.new_token_ids))
        update_stats(state, output, *args)

    processor.add_request = add_with_count  # type: ignore[method-assign]
    processor._update_stats_from_output = update_and_count  # type: ignore[assignment, method-assign]  # noqa: SLF001


def counted_requests(engine: "AsyncLLM") -> list[tuple[str, Any]]:
    """The requests that an engine computes now: its own id of each, and the count that `report_tokens` has opened.

    Why: the end of a response does not abort them when another task still waits for them, and their number is the
    engine's only. Unnecessary once vLLM aborts all requests of a handler before it returns.
    """
    states: dict[str, Any] = engine.output_processor.request_states
    return [(request_id, state.headway_count) for request_id, state in states.items()]


def was_killed(engine: "AsyncLLM") -> bool:
    """Whether somebody else killed the process of a dead engine: a person, or the system, which had no memory left.

    Why: a request may be the cause of any other death, and is not computed again then. Unnecessary once
    `EngineDeadError` says how the process ended.
    """
    manager = engine.engine_core.resources.engine_manager
    return any(each.exitcode in {-signal.SIGKILL, -signal.SIGTERM} for each in getattr(manager, "processes", ()))


def begun_requests(engine: "AsyncLLM") -> dict[str, bool]:
    """The requests that an engine has begun, or will begin, by the ids that `generate` got: whether each has a token.

    Why: outputs of a response that is no stream arrive at its end, so nothing else says which requests the engine had
    computed when it died. Unnecessary once `EngineDeadError` names the requests of the step that failed.
    """
    requests: dict[str, bool] = {}
    for state in engine.output_processor.request_states.values():  # one for each choice
        requests[state.external_req_id] = requests.get(state.external_req_id, True) and not state.is_prefilling
    return requests


def open_grammar_backend(name: str, config: "VllmConfig", tokenizer: Any) -> Any:
    """Open one of the backends that an engine compiles grammars with, outside of an engine.

    Why: the replica has to know what a grammar costs before the engine pays for it, and vLLM compiles in the engine
    only. Unnecessary once vLLM limits the time and the memory that a grammar takes.
    """
    from vllm.v1.structured_output.backend_guidance import GuidanceBackend
    from vllm.v1.structured_output.backend_outlines import OutlinesBackend
    from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

    backends: dict[str, Any] = {"xgrammar": XgrammarBackend, "guidance": GuidanceBackend, "outlines": OutlinesBackend}
    return backends[name](config, tokenizer=tokenizer, vocab_size=config.model_config.get_vocab_size())


def chosen_grammar_backend(grammar: "StructuredOutputsParams") -> str:
    """Name of the backend that vLLM has chosen for a grammar when it checked it.

    Why: it is stored in an attribute that is private. Unnecessary once the check returns it.
    """
    return str(grammar._backend)  # noqa: SLF001
