"""The tokenizer: byte-level BPE, trained once on a sample of the sources and then frozen.

The word pattern follows Llama 3 (Grattafiori et al., 2024): digits in groups of three, runs of spaces and of line ends
kept together. The alphabet holds all 256 bytes, so every text can be encoded and decoded without loss.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from headway.data.documents import read_documents, split_at_lines
from headway.data.holdout import Holdout
from headway.data.read_counts import ReadCounts
from headway.data.unit import Unit
from headway.errors import DataError

END_OF_DOCUMENT = "<|endoftext|>"
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MAX_TEXT_BYTES = 1 << 16
"""Longest training text [bytes]; longer ones are split, because the trainer reads 256 texts ahead."""
PARALLELISM_VARIABLE = "TOKENIZERS_PARALLELISM"


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> str:
    """Train a tokenizer of at most `vocabulary` tokens; returns the text of its tokenizer.json.

    Deterministic: equal texts give equal bytes for any number of threads.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str(pretty=True)


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json. A document that spells the end-of-document token is encoded as plain text.

    Raises:
        DataError: the file is not a tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise DataError(f"{path}: cannot be read as a tokenizer: {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer


def end_of_document(tokenizer: Tokenizer) -> int:
    """Id of the token that ends each document.

    Raises:
        DataError: the tokenizer has no such token.
    """
    token = tokenizer.token_to_id(END_OF_DOCUMENT)
    if token is None:
        raise DataError(f"the tokenizer has no token {END_OF_DOCUMENT}, which ends each document; build the data again")
    return token


def sample_texts(
    sources: Mapping[str, Sequence[Unit]], sample_bytes: int, *, holdout: Holdout, document_bytes: int
) -> Iterator[str]:
    """Training text of about `sample_bytes`, spread evenly over the sources and over the units of each.

    Larger sources make up for what small ones lack.
    """
    remaining = sample_bytes
    by_size = sorted(sources.items(), key=lambda item: (sum(unit.size for unit in item[1]), item[0]))
    for index, (_, units) in enumerate(by_size):
        quota, size = remaining // (len(by_size) - index), 0
        for number, unit in enumerate(units, 1):
            for raw in _texts(unit, holdout, document_bytes, limit=quota * number // len(units) - size):
                size += len(raw)
                yield raw.decode(errors="ignore")
        remaining -= size


def _texts(unit: Unit, holdout: Holdout, document_bytes: int, *, limit: int) -> Iterator[bytes]:
    """Training documents from the start of a unit; the last one is truncated at `limit` bytes in total."""
    for span in unit.spans if limit > 0 else ():
        for document in read_documents(span, unit.text_key, document_bytes, ReadCounts()):
            if limit <= 0:
                return
            if not holdout.includes(document):
                yield from split_at_lines(io.BytesIO(document.raw[:limit]).read, MAX_TEXT_BYTES)
                limit -= len(document.raw)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep the tokenizer on the calling thread; a build is parallel by processes."""
    before = os.environ.get(PARALLELISM_VARIABLE)
    os.environ[PARALLELISM_VARIABLE] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PARALLELISM_VARIABLE]
        else:
            os.environ[PARALLELISM_VARIABLE] = before
