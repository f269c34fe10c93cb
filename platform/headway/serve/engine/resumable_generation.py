"""Resumable generation: tracks what a request was sent so far, so that another engine can continue it."""

from typing import TYPE_CHECKING, Any

from headway.serve.engine.token_counts import GenerationTokens

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput, RequestOutput


class ResumableGeneration:
    """The output stream of one request, from one engine or from several in turn."""

    def __init__(self, prompt: Any, params: "SamplingParams") -> None:
        from vllm.sampling_params import RequestOutputKind

        self.prompt, self.params = prompt, params
        """Input of the next engine."""
        self._is_tracked = params.output_kind == RequestOutputKind.DELTA and params.n == 1
        """Whether the outputs can be tracked: a stream of one choice."""
        self._has_started = False
        self._original_prompt: list[int] | None = None
        """Tokens of the client's prompt, once `prompt` also holds tokens of the output."""
        self._tokens: list[int] = []
        """Tokens forwarded so far."""
        self._characters = 0
        """Characters forwarded so far."""
        self._repeated_tokens: list[int] = []
        """Tokens that were forwarded and that the current engine generates again."""
        self._repeated_characters = 0
        """Characters that were forwarded and that the current engine generates again."""

    @property
    def token_count(self) -> int:
        """Number of tokens forwarded so far."""
        return len(self._tokens)

    def advance(self, output: "RequestOutput") -> "RequestOutput | None":
        """Track an output of the engine. Returns what to forward; None if all of it was forwarded before.

        Raises:
            RuntimeError: a new engine generates other tokens than those forwarded before.
        """
        self._has_started = True
        if not self._is_tracked:
            return output
        choice = output.outputs[0]
        if self._repeated_tokens or self._repeated_characters:
            self._remove_repeated(choice)
            if not (choice.token_ids or choice.text or output.finished):
                return None
        if self._original_prompt is not None:
            output.prompt_token_ids = self._original_prompt
        self._tokens.extend(choice.token_ids)
        self._characters += len(choice.text)
        return output

    def prepare_resume(self) -> bool:
        """Set `prompt` and `params` for another engine; False if no engine can continue this output."""
        if not self._has_started:
            return True
        if not self._is_tracked:
            return False
        has_token_ids = isinstance(self.prompt, dict) and "prompt_token_ids" in self.prompt
        if has_token_ids and _depends_on_tokens_only(self.params):
            self._extend_prompt()
            return True
        if self.params.temperature == 0 or self.params.seed is not None:
            self._repeated_tokens, self._repeated_characters = list(self._tokens), self._characters
            return True
        return False

    def account_for_replay(self, tokens: GenerationTokens) -> None:
        """Tell the count of its tokens what the next engine computes again, after `prepare_resume`."""
        in_prompt = 0
        if self._original_prompt is not None:
            in_prompt = len(self.prompt["prompt_token_ids"]) - len(self._original_prompt)
        tokens.replay(kept=self.token_count, in_prompt=in_prompt, repeated=len(self._repeated_tokens))

    def _extend_prompt(self) -> None:
        """Append the forwarded tokens to the prompt."""
        if self._original_prompt is None:
            self._original_prompt = list(self.prompt["prompt_token_ids"])
        appended = len(self.prompt["prompt_token_ids"]) - len(self._original_prompt)
        new = self._tokens[appended:]
        self.prompt = {**self.prompt, "prompt_token_ids": [*self.prompt["prompt_token_ids"], *new]}
        self.params = self.params.clone()
        if self.params.max_tokens is not None:
            self.params.max_tokens -= len(new)
        self.params.min_tokens = max(0, self.params.min_tokens - len(new))

    def _remove_repeated(self, choice: "CompletionOutput") -> None:
        """Remove from an output what was forwarded before."""
        count = min(len(choice.token_ids), len(self._repeated_tokens))
        if list(choice.token_ids[:count]) != self._repeated_tokens[:count]:
            raise RuntimeError("the engine died, and the next one generates other tokens: the stream cannot continue")
        del self._repeated_tokens[:count]
        choice.token_ids = list(choice.token_ids)[count:]
        if choice.logprobs is not None:
            choice.logprobs = choice.logprobs[count:]
        characters = min(len(choice.text), self._repeated_characters)
        self._repeated_characters -= characters
        choice.text = choice.text[characters:]


def _depends_on_tokens_only(params: "SamplingParams") -> bool:
    """Whether the next token depends on the tokens before it only, and not on where the prompt ends."""
    dependencies = (
        params.stop,
        params.bad_words,
        params.structured_outputs,
        params.presence_penalty,
        params.frequency_penalty,
        params.repetition_penalty != 1,
        params.prompt_logprobs,
        params.thinking_token_budget,
        params.repetition_detection,
        params.temperature > 0 and params.seed is not None,
    )
    return not any(dependencies)
