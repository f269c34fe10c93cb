"""The tokenizer: byte-level BPE, trained once on a sample of the sources and then frozen.

Splitting into words follows Llama 3 (Grattafiori et al., 2024): numbers in groups of three digits, runs of spaces
and of line ends kept together. The 256 bytes are always in the alphabet, so every text can be encoded, and back.
"""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from headway.data.documents import pieces, read_documents
from headway.data.unit import Unit
from headway.errors import DataError

END_OF_DOCUMENT = "<|endoftext|>"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LONGEST_TEXT = 1 << 16
"""Texts that the tokenizer learns from are cut to this length [bytes]: it reads 256 of them ahead."""
PARALLELISM = "TOKENIZERS_PARALLELISM"


def train(texts: Iterator[str], vocabulary: int) -> str:
    """Learn a tokenizer of at most `vocabulary` tokens; returns the text of its tokenizer.json.

    Deterministic: equal texts give equal bytes, whatever the number of threads.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
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


def load(path: Path) -> Tokenizer:
    """Read a tokenizer.json; the end-of-document token is never found in a text that happens to spell it.

    Raises:
        DataError: it is not a tokenizer.
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
        DataError: the tokenizer has none.
    """
    found = tokenizer.token_to_id(END_OF_DOCUMENT)
    if found is None:
        raise DataError(f"tokenizer: has no token {END_OF_DOCUMENT}, which ends each document")
    return found


def sha256(path: Path) -> str:
    """SHA-256, in hex, of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample(
    sources: Mapping[str, Sequence[Unit]], sample_bytes: int, *, held_out_share: float, longest: int
) -> Iterator[str]:
    """Training text of about `sample_bytes`, spread evenly over the sources, and over each one's units.

    What a small source cannot give, the larger ones do.
    """
    left = sample_bytes
    by_size = sorted(sources.items(), key=lambda item: (sum(unit.size for unit in item[1]), item[0]))
    for index, (_, units) in enumerate(by_size):
        quota, taken = left // (len(by_size) - index), 0
        for number, unit in enumerate(units, 1):
            for raw in _texts(unit, held_out_share, longest, limit=quota * number // len(units) - taken):
                taken += len(raw)
                yield raw.decode(errors="ignore")
        left -= taken


def _texts(unit: Unit, held_out_share: float, longest: int, *, limit: int) -> Iterator[bytes]:
    """Training documents from the start of a unit, the last one cut so that they are at most `limit` bytes."""
    for span in unit.spans if limit > 0 else ():
        for document in read_documents(span, unit.text_key, longest, Counter()):
            if limit <= 0:
                return
            if not document.held_out(held_out_share):
                yield from pieces(io.BytesIO(document.raw[:limit]).read, LONGEST_TEXT)
                limit -= len(document.raw)


@contextmanager
def one_core() -> Iterator[None]:
    """Keep tokenizers on the calling thread: the processes of a build are its parallelism."""
    before = os.environ.get(PARALLELISM)
    os.environ[PARALLELISM] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PARALLELISM]
        else:
            os.environ[PARALLELISM] = before
