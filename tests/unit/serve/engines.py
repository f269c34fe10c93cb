"""An engine of which the test decides each step: vLLM's own front end, around a core that computes nothing.

What it counts is vLLM's count (`IterationStats`), to which the tokens of all requests have to add up.
"""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from vllm import SamplingParams
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest, FinishReason
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.metrics.stats import IterationStats, PrefillStats


class Core:
    """The process of an engine, without one."""

    def __init__(self) -> None:
        self.resources = SimpleNamespace(
            engine_manager=SimpleNamespace(processes=[SimpleNamespace(exitcode=-9)]), engine_dead=False
        )
        self.requests: dict[str, EngineCoreRequest] = {}
        """What it computes, by its own ids."""
        self.generated: dict[str, int] = {}
        self._outputs: asyncio.Queue[EngineCoreOutputs | Exception] = asyncio.Queue()

    async def get_supported_tasks_async(self) -> tuple[str, ...]:
        """It generates."""
        return ("generate",)

    async def add_request_async(self, request: EngineCoreRequest) -> None:
        """Compute a request from the next step on."""
        await asyncio.sleep(0)
        self.requests[request.request_id] = request
        self.generated[request.request_id] = 0

    async def abort_requests_async(self, ids: list[str]) -> None:
        """Compute some no longer."""
        await asyncio.sleep(0)
        for each in ids:
            self.requests.pop(each, None)

    async def get_output_async(self) -> EngineCoreOutputs:
        """Return the outputs of the next step."""
        outputs = await self._outputs.get()
        if isinstance(outputs, Exception):
            raise outputs
        return outputs

    def shutdown(self, **_: Any) -> None:
        """End."""

    def step(self) -> None:
        """Generate a token for each request; the number of a token is its position."""
        outputs = []
        for name, request in list(self.requests.items()):
            prompt = len(request.prompt_token_ids or ())
            stats = PrefillStats(num_prompt_tokens=prompt) if not self.generated[name] else None
            self.generated[name] += 1
            params = cast("SamplingParams", request.sampling_params)
            finished = self.generated[name] == params.max_tokens
            token = prompt + self.generated[name]
            reason = FinishReason.LENGTH if finished else None
            outputs.append(EngineCoreOutput(name, [token], finish_reason=reason, prefill_stats=stats))
            if finished:
                del self.requests[name]
        self._outputs.put_nowait(EngineCoreOutputs(outputs=outputs))

    def die(self) -> None:
        """Die: all streams get an error."""
        self.resources.engine_dead = True
        self._outputs.put_nowait(EngineDeadError())


class Engine(AsyncLLM):
    """vLLM's engine as the replica has it, around such a core."""

    def __init__(self) -> None:
        self.core = Core()
        self.prompt_tokens = self.generated_tokens = 0
        """What vLLM has counted."""
        self.engine_core = cast("Any", self.core)
        self.output_processor = OutputProcessor(None, log_stats=True)
        self.input_processor = cast(
            "Any", SimpleNamespace(process_inputs=_request, assign_request_id=InputProcessor.assign_request_id)
        )
        self.vllm_config = cast("Any", SimpleNamespace(cache_config=SimpleNamespace(kv_sharing_fast_prefill=False)))
        self.scheduler_config = cast("Any", SimpleNamespace(max_num_queued_reqs=None, max_num_queued_tokens=None))
        self.model_config = cast("Any", SimpleNamespace(is_encoder_decoder=False, get_vocab_size=lambda: 2**20))
        self.renderer = cast("Any", SimpleNamespace(mm_processor_cache=None, stat_mm_cache=lambda: None))
        self.logger_manager = cast("Any", SimpleNamespace(record=self._record))
        self.log_stats, self.log_requests, self.output_handler = True, False, None

    def _record(self, iteration_stats: IterationStats | None, **_: Any) -> None:
        if iteration_stats:
            self.prompt_tokens += iteration_stats.num_prompt_tokens
            self.generated_tokens += iteration_stats.num_generation_tokens

    def shutdown(self, timeout: float | None = None) -> None:  # noqa: ARG002 - vLLM's signature
        """End, as vLLM's does: without a report to the streams."""
        if self.output_handler:
            self.output_handler.cancel()

    def __del__(self) -> None: ...


def _request(request_id: str, prompt: Any, params: SamplingParams, **_: Any) -> EngineCoreRequest:
    """Make a request of the core from a prompt of tokens."""
    return EngineCoreRequest(
        request_id=request_id,
        prompt_token_ids=list(prompt["prompt_token_ids"]),
        mm_features=None,
        sampling_params=params.clone(),
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )
