"""vLLM: starts its engine, and builds its OpenAI application around it. All settings of vLLM are here."""

import asyncio
import os
from argparse import Namespace
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headway.parent_death import PARENT_VARIABLE
from headway.serve.config import ServeConfig
from headway.serve.engine.token_counts import EngineTokens
from headway.serve.patches import application_patches, engine_patches
from headway.serve.request_context import CURRENT_REQUEST
from headway.telemetry import Log

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM

    from headway.serve.engine.failover import Failover
    from headway.telemetry.serving_metrics import ServingMetrics

OFFLINE_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""Environment without usage statistics, without a model hub, and without chatter in the log."""
UNSAFE_VARIABLES = ("VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "VLLM_ENABLE_RESPONSES_API_STORE")
"""Environment variables that would make vLLM open routes or check keys by itself."""


def on_gpu() -> bool:
    """Whether the engine has an NVIDIA GPU; checked without loading torch."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def cpu_environment(config: ServeConfig) -> dict[str, str]:
    """Environment variables of an engine on a CPU."""
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine still has its own process, but no worker process
        "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than a small model takes to respond
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": str(config.cache_gib),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) - 1)),  # one core is left for HTTP
    }


def set_engine_environment(config: ServeConfig) -> None:
    """Set the environment variables of vLLM and torch; on a CPU, also start the forkserver of the engine.

    Must run before the process imports either. Most of a start on a CPU is imports, and so both processes import at
    the same time.
    """
    for name in UNSAFE_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(OFFLINE_ENVIRONMENT)
    if not on_gpu():
        os.environ.update(cpu_environment(config))
        os.environ[PARENT_VARIABLE] = str(os.getpid())
        modules = ("forkserver_death", "engine_preload")
        forkserver.set_forkserver_preload([f"headway.serve.engine.{module}" for module in modules])
        forkserver.ensure_running()


def process_context() -> ForkServerContext | SpawnContext:
    """How this process starts another that uses vLLM: on a CPU, from the forkserver, which has loaded it."""
    return get_context("spawn") if on_gpu() else get_context("forkserver")


def engine_arguments(config: ServeConfig) -> Namespace:
    """The arguments that `vllm serve` would parse for this configuration."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words = ["--model", str(config.folder), "--served-model-name", config.name, "--seed", str(config.seed)]
    words += ["--max-num-seqs", str(config.streams), "--disable-uvicorn-access-log"]
    if config.context_tokens:
        words += ["--max-model-len", str(config.context_tokens)]
    if not on_gpu():
        words += ["--enforce-eager", "--distributed-executor-backend", "uni"]
    args: Namespace = make_arg_parser(FlexibleArgumentParser()).parse_args(words)  # type: ignore[no-untyped-call]
    return args


async def start_engine(
    args: Namespace, on_cache_usage: Callable[[float], None], metrics: "ServingMetrics"
) -> "AsyncLLM":
    """Start an engine in its own process. Returns when it has loaded the model.

    `on_cache_usage` gets the usage of the KV cache, 0 to 1, after each step; `metrics` get the tokens of each step.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.metrics.loggers import StatLoggerBase

    class StepLogger(StatLoggerBase):
        """Passes the usage of the KV cache and the tokens on; vLLM calls it after each step."""

        def __init__(self, *_: Any) -> None: ...

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
            if scheduler_stats is not None:
                on_cache_usage(scheduler_stats.kv_cache_usage)
            if iteration_stats is not None:
                metrics.record_step(
                    prompt_tokens=iteration_stats.num_prompt_tokens,
                    generated_tokens=iteration_stats.num_generation_tokens,
                )

        def log_engine_initialized(self) -> None: ...

    def start() -> AsyncLLM:
        if not on_gpu():
            engine_patches.use_forkserver()
        context = UsageContext.OPENAI_API_SERVER
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(usage_context=context)
        return AsyncLLM.from_vllm_config(config, usage_context=context, stat_loggers=[StepLogger])

    engine = await asyncio.to_thread(start)  # the event loop goes on with waiting requests
    EngineTokens(engine, metrics)
    return engine


async def generate_first_token(engine: "AsyncLLM") -> None:
    """Generate one token: an engine counts as ready only after it."""
    from vllm import SamplingParams

    CURRENT_REQUEST.set(None)  # a request in whose task an engine is replaced is not charged for it
    async for _ in engine.generate({"prompt_token_ids": [0]}, SamplingParams(max_tokens=1), "ready"):
        pass


async def build_application(engine: "Failover", args: Namespace, log: Log) -> "FastAPI":
    """Build vLLM's own OpenAI application around `engine`; `log` gets the errors of its requests."""
    application_patches.stop_at_first_message()  # before the routes are imported

    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    # imports fastapi, too early for a start
    from headway.serve.engine.error_handlers import install_error_handlers, shorten

    application_patches.cache_environment()
    application_patches.shorten_errors(shorten)
    tasks = await engine.get_supported_tasks()
    app = build_app(args, tasks, engine.model_config)
    await init_app_state(cast("AsyncLLM", engine), app.state, args, tasks)
    install_error_handlers(app, log)
    application_patches.remove_middleware(app)
    application_patches.ignore_server_stop(app)
    return app
