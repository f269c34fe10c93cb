"""Workers of a build: they turn units of documents into shards, in this process or in a pool of processes.

Each finished unit has a receipt beside the shards. When a build is run again, it skips the units whose shards still
have the SHA-256 in their receipt.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from headway.data.data_manifest import SHARDS, TOKENIZER, Split, TokenShard
from headway.data.documents import read_documents
from headway.data.holdout import Document, Holdout
from headway.data.read_counts import ReadCounts
from headway.data.token_shard import ShardWriter
from headway.data.tokenizer import PARALLELISM_VARIABLE, end_of_document, load_tokenizer, single_threaded
from headway.data.unit import FileSpan, Unit
from headway.errors import DamageError, DataError, HeadwayError, UsageError
from headway.json_manifest import Manifest
from headway.localfiles import file_sha256, read_bounded, replacing

RECEIPTS = "units"
MAX_RECEIPT_BYTES = 16 << 20
"""Longest receipt [bytes]: 200,000 spans in a unit."""
BATCH_BYTES = 1 << 20
"""Text encoded at once [bytes]: the tokenizer needs about 50 times as much memory while it works."""
BATCH_DOCUMENTS = 1024
POLL_SECONDS = 0.2
"""How often the parent polls its workers and reports progress."""

ReportProgress = Callable[[int, int], None]
"""Takes the input bytes read and the tokens written since the last call."""


@dataclass(frozen=True)
class BuildJob:
    """The settings that all units of a build share."""

    folder: Path
    tokenizer_sha256: str
    holdout: Holdout
    document_bytes: int
    """Longest document [bytes]."""


class Receipt(Manifest):
    """The result of one unit."""

    tokenizer_sha256: str
    inputs: list[str]
    """SHA-256 of each span."""
    documents: int
    held_out_documents: int
    dropped: dict[str, int]
    input_documents: int
    """All documents, those left out too."""
    text_bytes: int
    text_bytes_kept: int
    text_bytes_left_out: int
    shards: list[TokenShard]


def run_units(
    units: list[Unit], job: BuildJob, *, workers: int, report: ReportProgress
) -> Iterator[tuple[Unit, Receipt]]:
    """Process all `units` with at most `workers` processes; yields each one as it finishes, in any order.

    Raises:
        HeadwayError: a worker process died.
    """
    workers = min(workers, len(units))
    if workers <= 1:
        with single_threaded():
            tokenizer = load_tokenizer(job.folder / TOKENIZER)
            for unit in units:
                yield unit, tokenize_unit(unit, job, tokenizer, report)
        return
    context = multiprocessing.get_context("spawn")
    counters, stop = context.Array("q", 2), context.Event()
    reported = (0, 0)
    with ProcessPoolExecutor(workers, context, _initialize_worker, (job, counters, stop)) as pool:
        pending = {pool.submit(_tokenize_in_worker, unit): unit for unit in units}
        try:
            while pending:
                done, _ = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                now = (counters[0], counters[1])
                report(now[0] - reported[0], now[1] - reported[1])
                reported = now
                for future in done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool as error:
            raise HeadwayError(
                "a worker of the build died. Either memory ran out: run it again with fewer workers; finished shards "
                'are kept. Or a script calls build outside of `if __name__ == "__main__":`'
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def tokenize_unit(unit: Unit, job: BuildJob, tokenizer: Tokenizer, report: ReportProgress) -> Receipt:
    """Tokenize one unit into its shards and write its receipt.

    Raises:
        DataError: an input file changed since the build was planned.
    """
    documents: Counter[Split] = Counter()
    counts, kept = ReadCounts(), 0
    with ExitStack() as stack:
        writers: dict[Split, ShardWriter] = {}
        for batch in _batches(_documents(unit, job, counts, report)):
            kept += sum(len(document.raw) for document in batch)
            ids = _encode(batch, job, tokenizer, documents)
            for split, tokens in ids.items():
                if split not in writers:
                    file = stack.enter_context(replacing(job.folder / SHARDS / _shard_name(unit, split), durable=False))
                    writers[split] = ShardWriter(file, tokenizer.get_vocab_size(), job.tokenizer_sha256)
                writers[split].append(tokens)
            report(0, sum(map(len, ids.values())))
        inputs = [_sha256(span) for span in unit.spans]
        _check_unchanged(unit)
        summaries = {split: writers[split].finish() for split in sorted(writers)}
    receipt = Receipt(
        tokenizer_sha256=job.tokenizer_sha256,
        inputs=inputs,
        documents=documents["train"],
        held_out_documents=documents["held_out"],
        dropped=dict(sorted(counts.dropped.items())),
        input_documents=counts.documents,
        text_bytes=counts.text_bytes,
        text_bytes_kept=kept,
        text_bytes_left_out=counts.dropped_bytes,
        shards=[
            TokenShard(
                name=_shard_name(unit, split),
                source=unit.source,
                split=split,
                tokens=shard.tokens,
                bytes=shard.size,
                sha256=shard.sha256,
            )
            for split, shard in summaries.items()
        ],
    )
    with replacing(_receipt_path(job, unit), durable=False) as file:
        file.write(receipt.model_dump_json(indent=1).encode())
    return receipt


def valid_receipt(unit: Unit, job: BuildJob) -> Receipt | None:
    """The receipt of `unit`, or None if it is missing or its shards do not match it."""
    try:
        receipt = Receipt.decode(read_bounded(_receipt_path(job, unit), MAX_RECEIPT_BYTES), unit.name)
        sound = receipt.tokenizer_sha256 == job.tokenizer_sha256 and all(
            shard.name == _shard_name(unit, shard.split)
            and file_sha256(job.folder / SHARDS / shard.name) == shard.sha256
            for shard in receipt.shards
        )
    except (OSError, DamageError, UsageError):
        return None
    return receipt if sound else None


def _encode(
    batch: list[Document], job: BuildJob, tokenizer: Tokenizer, documents: Counter[Split]
) -> dict[Split, list[int]]:
    """The tokens of a batch by split. Counts its documents in `documents`."""
    end = end_of_document(tokenizer)
    encodings = tokenizer.encode_batch_fast([document.text for document in batch])
    ids: dict[Split, list[int]] = {}
    for document, encoding in zip(batch, encodings, strict=True):
        split: Split = "held_out" if job.holdout.includes(document) else "train"
        documents[split] += 1
        tokens = ids.setdefault(split, [])
        tokens += encoding.ids
        tokens.append(end)
    return ids


def _shard_name(unit: Unit, split: Split) -> str:
    return f"{unit.name}.{split}.tokens"


def _receipt_path(job: BuildJob, unit: Unit) -> Path:
    return job.folder / RECEIPTS / f"{unit.name}.json"


def _documents(unit: Unit, job: BuildJob, counts: ReadCounts, report: ReportProgress) -> Iterator[Document]:
    for span in unit.spans:
        yield from read_documents(span, unit.text_key, job.document_bytes, counts)
        report(span.size, 0)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.raw)
        if size >= BATCH_BYTES or len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _sha256(span: FileSpan) -> str:
    """SHA-256 of the bytes of a span. The first span of a parquet file covers the whole file, the others nothing."""
    remaining = span.stop - span.start
    if span.file.kind == "parquet":
        remaining = 0 if span.start else span.file.size
    digest = hashlib.sha256()
    try:
        with open(span.file.path, "rb") as file:  # noqa: PTH123 - the path is a string here
            file.seek(0 if span.file.kind == "parquet" else span.start)
            while remaining and (chunk := file.read(min(remaining, 1 << 20))):
                digest.update(chunk)
                remaining -= len(chunk)
    except OSError as error:
        raise DataError(f"{span.file.path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _check_unchanged(unit: Unit) -> None:
    for span in unit.spans:
        try:
            status = os.stat(span.file.path)  # noqa: PTH116 - the path is a string here
        except OSError:
            status = None
        if status is None or (status.st_size, status.st_mtime_ns) != (span.file.size, span.file.modified):
            raise DataError(f"{span.file.path}: changed while the build was reading it; run the build again")


_worker_state: dict[str, Any] = {}
"""Arguments of `tokenize_unit` in a worker process, set by `_initialize_worker`."""


def _initialize_worker(job: BuildJob, counters: Any, stop: Any) -> None:
    """Prepare a worker process: one core, Ctrl-C ignored, exit with the parent."""
    os.environ[PARALLELISM_VARIABLE] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    def report(size: int, tokens: int) -> None:
        if stop.is_set():
            raise HeadwayError("the build has ended; this unit is left unfinished")
        with counters.get_lock():
            counters[0] += size
            counters[1] += tokens

    _worker_state.update(job=job, tokenizer=load_tokenizer(job.folder / TOKENIZER), report=report)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _tokenize_in_worker(unit: Unit) -> Receipt:
    return tokenize_unit(unit, **_worker_state)
