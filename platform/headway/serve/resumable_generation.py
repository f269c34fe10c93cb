"""What a request was answered so far, and what another engine is to be asked so that it goes on there."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput, RequestOutput


class ResumableGeneration:
    """One request's answer, piece by piece, from one engine or from several."""

    def __init__(self, prompt: Any, params: "SamplingParams") -> None:
        from vllm.sampling_params import RequestOutputKind

        self.prompt, self.params = prompt, params
        """What the engine is to be asked next."""
        self._followed = params.output_kind == RequestOutputKind.DELTA and params.n == 1
        self._began = False
        self._prompt_tokens: list[int] | None = None
        """The prompt that was asked first, once an answer is part of it."""
        self._tokens: list[int] = []
        self._characters = 0
        self._again: list[int] = []
        """Tokens that were passed on already, and that come again."""
        self._again_characters = 0

    @property
    def said(self) -> int:
        """Tokens that were passed on."""
        return len(self._tokens)

    def take(self, output: "RequestOutput") -> "RequestOutput | None":
        """A piece as it is to be passed on; None if all of it was passed on before.

        Raises:
            RuntimeError: what was passed on before does not come again.
        """
        self._began = True
        if not self._followed:
            return output
        piece = output.outputs[0]
        if self._again or self._again_characters:
            self._drop(piece)
            if not (piece.token_ids or piece.text or output.finished):
                return None
        if self._prompt_tokens is not None:
            output.prompt_token_ids = self._prompt_tokens
        self._tokens.extend(piece.token_ids)
        self._characters += len(piece.text)
        return output

    def go_on(self) -> bool:
        """Set `prompt` and `params` for another engine; False if it cannot go on where this one stopped."""
        if not self._began:
            return True
        if not self._followed:
            return False
        if _continues(self.params) and isinstance(self.prompt, dict) and "prompt_token_ids" in self.prompt:
            self._continue()
            return True
        if self.params.temperature == 0 or self.params.seed is not None:
            self._again, self._again_characters = list(self._tokens), self._characters
            return True
        return False

    def _continue(self) -> None:
        """What was said becomes part of the prompt."""
        if self._prompt_tokens is None:
            self._prompt_tokens = list(self.prompt["prompt_token_ids"])
        before = len(self.prompt["prompt_token_ids"]) - len(self._prompt_tokens)
        new = self._tokens[before:]
        self.prompt = {**self.prompt, "prompt_token_ids": [*self.prompt["prompt_token_ids"], *new]}
        self.params = self.params.clone()
        if self.params.max_tokens is not None:
            self.params.max_tokens -= len(new)
        self.params.min_tokens = max(0, self.params.min_tokens - len(new))

    def _drop(self, piece: "CompletionOutput") -> None:
        """Take from a piece what was passed on before."""
        count = min(len(piece.token_ids), len(self._again))
        if list(piece.token_ids[:count]) != self._again[:count]:
            raise RuntimeError("the engine died, and its successor answers otherwise: the stream cannot go on")
        del self._again[:count]
        piece.token_ids = list(piece.token_ids)[count:]
        if piece.logprobs is not None:
            piece.logprobs = piece.logprobs[count:]
        characters = min(len(piece.text), self._again_characters)
        self._again_characters -= characters
        piece.text = piece.text[characters:]


def _continues(params: "SamplingParams") -> bool:
    """Whether the next token depends on the tokens before it only, not on which of them are answer."""
    depends = (
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
    return not any(depends)
