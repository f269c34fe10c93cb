"""Grammar process: compiles grammars outside of the replica and the engine, each in a fork that has limits.

It does with a grammar what the replica and the engine will do with it. The fork dies where they would have been blocked
or have run out of memory.
"""

import os
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from headway.serve.patches import engine_patches

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import StructuredOutputsParams

CPU_SECONDS = 2
"""CPU time that a grammar may take to compile [s]: the engine's threads would spend it, and share its cores."""
CHECK_SECONDS = 0.25
"""CPU time that vLLM's check of a grammar may take [s]: the replica's event loop would stand still."""
WALL_SECONDS = 20
"""Time that a fork has in all [s], on a machine with much else to do."""
MEMORY_BYTES = 256 * 2**20
"""Memory that a grammar may take beyond what the process has, the stacks of a library's threads included."""
PROCESS_NAME = "grammars"
"""What `ps` and `top` call this process; it comes from the same forkserver as the engine."""
NICENESS = 10
"""Priority below that of the engine and the replica."""
PAGE_BYTES = resource.getpagesize()
DATA_FIELD = 5
"""Place of the size of private memory in `/proc/PID/statm`: addresses that are only reserved do not count."""
TOO_EXPENSIVE = "The grammar or schema takes too much time or memory to compile. Make it smaller."
NOT_COMPILED = "The grammar or schema can be neither compiled nor followed."


class Compilers:
    """The backends that an engine compiles grammars with, and what they need."""

    def __init__(self, config: "VllmConfig") -> None:
        from vllm.tokenizers import cached_tokenizer_from_config

        self.config, self.tokenizer = config, cached_tokenizer_from_config(config.model_config)
        names = ("xgrammar", "guidance")
        self._backends = {name: engine_patches.open_grammar_backend(name, config, self.tokenizer) for name in names}

    def compile(self, grammar: "StructuredOutputsParams") -> None:
        """Check and compile a grammar; an engine keeps its first backend, so each of them compiles it.

        Raises:
            VLLMValidationError: vLLM refuses it, or it is too expensive to check.
        """
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError
        from vllm.v1.structured_output.request import get_structured_output_key

        before = time.process_time()
        params = SamplingParams(structured_outputs=grammar)
        params.verify(self.config.model_config, None, self.config.structured_outputs_config, self.tokenizer)
        if time.process_time() - before > CHECK_SECONDS:
            raise VLLMValidationError(TOO_EXPENSIVE)
        kind, text = get_structured_output_key(grammar)
        chosen = engine_patches.chosen_grammar_backend(grammar)
        if chosen not in self._backends:  # rare, and forgotten with this fork
            self._backends[chosen] = engine_patches.open_grammar_backend(chosen, self.config, self.tokenizer)
        for name, backend in self._backends.items():
            try:
                compiled = backend.compile_grammar(kind, text)
                compiled.fill_bitmask(backend.allocate_token_bitmask(1), 0)
            except Exception:
                if name == chosen:
                    raise


def serve_trials(connection: Connection, config: "VllmConfig") -> None:
    """Compile what comes through a connection, until it ends; respond with why it cannot be used, or an empty text."""
    Path("/proc/self/comm").write_text(PROCESS_NAME, encoding="ascii")
    compilers = Compilers(config)
    connection.send("")
    while True:
        try:
            grammar = connection.recv()
        except EOFError:
            return
        connection.send(run_in_fork(partial(compilers.compile, grammar)))


def run_in_fork(work: Callable[[], None]) -> str:
    """Run a function in a fork within limits. Returns why it failed; an empty text if it did not."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.close(reader)
        _run(work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        message = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return message if os.WIFEXITED(status) and not os.WEXITSTATUS(status) else TOO_EXPENSIVE


def _run(work: Callable[[], None], writer: int) -> None:
    """Run a function, write why it failed to a file descriptor, and end the process. Never returns."""
    code = 1
    try:
        from vllm.exceptions import VLLMValidationError

        _limit()
        try:
            work()
        except MemoryError:
            raise
        except VLLMValidationError as error:
            os.write(writer, str(error)[:500].encode())
        except Exception:  # any error of a library
            os.write(writer, NOT_COMPILED.encode())
        code = 0
    finally:
        os._exit(code)


def _limit() -> None:
    """Limit the time and the memory of this process."""
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[DATA_FIELD]) * PAGE_BYTES
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(WALL_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (size + MEMORY_BYTES, size + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
