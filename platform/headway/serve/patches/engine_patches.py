"""Patches of vLLM's engine, and what it does not tell about its processes, requests and grammars."""

import signal
from collections.abc import Callable
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.engine.async_llm import AsyncLLM


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
