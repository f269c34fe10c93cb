"""Reads what a tokenizer.json says of its tokens, whoever wrote it, without loading the tokenizer."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headway.errors import DataError, UsageError
from headway.localfiles import read_bounded

MAX_TOKENIZER_BYTES = 64 << 20
"""Longest tokenizer.json [bytes]. Those of 256,000 tokens have 20 to 35 MB."""
TokenId = Annotated[int, Field(ge=0, lt=2**32)]


class _TokenizerSection(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class AddedToken(_TokenizerSection):
    """A token that is not of the trained vocabulary, such as the end of a document."""

    id: TokenId
    content: str


class Vocabulary(_TokenizerSection):
    """The trained tokens."""

    vocab: Mapping[str, TokenId]


class TokenizerFile(_TokenizerSection):
    """The tokens of a tokenizer.json."""

    model: Vocabulary
    added_tokens: list[AddedToken]

    @cached_property
    def size(self) -> int:
        """Number of tokens."""
        return len({*self.model.vocab, *(token.content for token in self.added_tokens)})

    @cached_property
    def largest(self) -> int:
        """The largest token id; -1 if there is no token."""
        return max([*self.model.vocab.values(), *(token.id for token in self.added_tokens)], default=-1)

    def added(self, number: int) -> str | None:
        """The text of the added token with this id; None if there is none."""
        return next((token.content for token in self.added_tokens if token.id == number), None)


def read_tokenizer(path: Path) -> TokenizerFile:
    """Read the tokens of a tokenizer.json.

    Raises:
        DataError: the file is missing, or is not a tokenizer.json.
    """
    try:
        data = read_bounded(path, MAX_TOKENIZER_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; build the data again (headway data build)") from None
    except (OSError, UsageError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    try:
        return TokenizerFile.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"][:2])) or "it"
        raise DataError(f"{path} is not a tokenizer.json of the tokenizers library: {place}: {first['msg']}") from error
