"""Grammar trial: each grammar is compiled in a process of its own before the replica and the engine see it.

They would compile it where every other request waits, and their libraries have few limits of their own.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from typing import TYPE_CHECKING

from headway.serve.capacity import Capacity
from headway.serve.config import ServeConfig
from headway.serve.engine.fair_queue import FairQueue
from headway.serve.engine.grammar_process import TOO_EXPENSIVE, WALL_SECONDS, serve_trials
from headway.serve.request_context import RequestContext

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.sampling_params import StructuredOutputsParams

START_SECONDS = 120.0
"""Time that the process has to start [s]: it loads the tokenizer."""
MAX_RESULTS = 1024
"""Results that are kept: clients send the same schema again and again."""


class GrammarTrial:
    """The process that compiles grammars, and what it has found about each."""

    def __init__(self, config: "VllmConfig", service: ServeConfig, context: ForkServerContext | SpawnContext) -> None:
        """`context`: starts the process."""
        self._config, self._context = config, context
        self._queue = FairQueue(Capacity(service.model_copy(update={"streams": 1})))
        """One grammar is compiled at a time; tenants take turns."""
        self._results: OrderedDict[bytes, str] = OrderedDict()
        self._process: ForkServerProcess | SpawnProcess | None = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        """A thread whose request was cancelled still uses the connection."""

    async def require_compilable(self, params: "SamplingParams", context: RequestContext) -> None:
        """Compile the grammar of a request, if it has one.

        Raises:
            VLLMValidationError: it cannot be compiled, or is too expensive.
        """
        from vllm.exceptions import VLLMValidationError

        grammar = params.structured_outputs
        if grammar is None:
            return
        key = hashlib.sha256(repr(grammar).encode()).digest()
        if (problem := self._results.get(key)) is None:
            async with self._queue.slot(RequestContext(context.request_id, tenant=context.tenant)):
                problem = await asyncio.to_thread(self._compile, grammar)
            self._results[key] = problem
        self._results.move_to_end(key)
        if len(self._results) > MAX_RESULTS:
            self._results.popitem(last=False)
        if problem:
            raise VLLMValidationError(problem)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _compile(self, grammar: "StructuredOutputsParams") -> str:
        """Compile a grammar in the process; returns why it cannot be used, or an empty text."""
        with self._lock:
            connection = self._connected()
            try:
                connection.send(grammar)
                if connection.poll(2 * WALL_SECONDS):
                    return str(connection.recv())
            except (EOFError, OSError):
                pass
            self.close()
            return TOO_EXPENSIVE

    def _connected(self) -> Connection:
        """The connection to the process; starts it if there is none.

        Raises:
            RuntimeError: it does not start.
        """
        if self._connection is None or self._process is None or not self._process.is_alive():
            self.close()
            self._connection, other = self._context.Pipe()
            self._process = self._context.Process(target=serve_trials, args=(other, self._config), daemon=True)
            self._process.start()
            other.close()
            if not self._connection.poll(START_SECONDS):
                self.close()
                raise RuntimeError("the process that compiles grammars does not start")
            self._connection.recv()
        return self._connection
