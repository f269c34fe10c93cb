"""vLLM: its engine, and its OpenAI application around it. The one door to it."""

import asyncio
import os
from argparse import Namespace
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headway.serve.config import ServeConfig

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM

    from headway.serve.failover import Failover

FORKSERVER = "forkserver"
QUIET = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
"""Nobody is called home, no model is looked for on a hub."""
FOREIGN = ("VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "VLLM_ENABLE_RESPONSES_API_STORE")
"""What would open or close doors past the links."""


def on_gpu() -> bool:
    """Whether the engine has an NVIDIA GPU; without loading torch."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def on_a_cpu(endpoint: ServeConfig) -> dict[str, str]:
    """The environment of an engine on a CPU."""
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # does not put the engine here: it lets it do without a worker process
        "TORCHDYNAMO_DISABLE": "1",  # a compiler takes longer to start than a small model to answer
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": str(endpoint.cache_gib),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1)),  # one core is for requests and answers
    }


def set_engine_environment(endpoint: ServeConfig) -> None:
    """Set what vLLM and torch read from the environment, and begin to load what the engine is forked from.

    To be called before either is imported: on a CPU most of a start is importing, which thus happens side by side.
    """
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(QUIET)
    if not on_gpu():
        os.environ.update(on_a_cpu(endpoint))
        forkserver.set_forkserver_preload(["headway.serve.engine_preload"])
        forkserver.ensure_running()


def arguments(endpoint: ServeConfig) -> Namespace:
    """What `vllm serve` would have been told."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words = ["--model", str(endpoint.folder), "--served-model-name", endpoint.name, "--seed", str(endpoint.seed)]
    words += ["--max-num-seqs", str(endpoint.streams), "--disable-uvicorn-access-log"]
    if endpoint.context_tokens:
        words += ["--max-model-len", str(endpoint.context_tokens)]
    if not on_gpu():
        words += ["--enforce-eager", "--distributed-executor-backend", "uni"]
    args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args(words)  # type: ignore[no-untyped-call]
    return args


async def start(args: Namespace, told: Callable[[float], None]) -> "AsyncLLM":
    """Start an engine in a process of its own; returns when it has loaded the model.

    After each step it tells which share of its KV cache is taken.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Pressure(StatLoggerBase):
        """Hears of each step."""

        def __init__(self, *_: Any) -> None: ...

        def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
            if scheduler_stats is not None:
                told(scheduler_stats.kv_cache_usage)

        def log_engine_initialized(self) -> None: ...

    def begin() -> AsyncLLM:
        if not on_gpu():
            _fork_from_server()
        context = UsageContext.OPENAI_API_SERVER
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(usage_context=context)
        return AsyncLLM.from_vllm_config(config, usage_context=context, stat_loggers=[Pressure])

    return await asyncio.to_thread(begin)  # requests that wait for it are to be heard meanwhile


async def first_token(engine: "AsyncLLM") -> None:
    """Generate one real token: what has never answered is not ready."""
    from vllm import SamplingParams

    async for _ in engine.generate({"prompt_token_ids": [0]}, SamplingParams(max_tokens=1), "ready"):
        pass


async def application(engine: "Failover", args: Namespace) -> "FastAPI":
    """VLLM's own OpenAI application on `engine`."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.envs import enable_envs_cache

    from headway.serve import error_handlers

    enable_envs_cache()  # it looks into the environment for each token
    tasks = await engine.get_supported_tasks()
    app = build_app(args, tasks, engine.model_config)
    await init_app_state(cast("AsyncLLM", engine), app.state, args, tasks)
    app.user_middleware.clear()  # the links do what it would: origins, metrics
    error_handlers.tell(app)
    app.state.server = Namespace(should_exit=False)  # its error handler tells a server of its own to stop
    return app


def _fork_from_server() -> None:
    """Have vLLM fork its engine from the process that `settle` began.

    It would start a new interpreter, which imports all again. There is no public way to say otherwise: the platform
    sets the method while it builds the configuration, and a Ray actor forces it.
    """
    import vllm.utils.system_utils
    import vllm.v1.engine.utils
    import vllm.v1.executor.multiproc_executor

    for module in (vllm.utils.system_utils, vllm.v1.engine.utils, vllm.v1.executor.multiproc_executor):
        module.get_mp_context = lambda: get_context(FORKSERVER)  # type: ignore[attr-defined]
