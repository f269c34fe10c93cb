"""A worker of a build: turns units of documents into shards, in this process or in a pool of them.

What a unit became is written down beside the shards as its receipt. A build that is run again
believes a receipt whose shards still have the SHA-256 that it names.
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

from headway.data import tokenizer as tokenizers
from headway.data.data_manifest import SHARDS, TOKENIZER, SourceRecord, Split, TokenShard
from headway.data.documents import Document, read_documents
from headway.data.token_shard import Writer, replacing
from headway.data.unit import FileSpan, Unit
from headway.errors import DataError, HeadwayError

RECEIPTS = "units"
BATCH_BYTES = 1 << 20
"""Text encoded at once [bytes]: the tokenizer needs about 50 times as much memory while it works."""
BATCH_DOCUMENTS = 1024
POLL_SECONDS = 0.2
"""How often the parent looks at its workers and reports progress."""

Report = Callable[[int, int], None]
"""Takes input bytes read and tokens written since the last call."""


@dataclass(frozen=True)
class BuildJob:
    """What is common to all units of a build."""

    folder: Path
    tokenizer_sha256: str
    held_out_share: float
    longest: int


class Receipt(SourceRecord):
    """What one unit became."""

    tokenizer_sha256: str
    inputs: list[str]
    """SHA-256 of each span."""
    documents: int
    held_out_documents: int
    dropped: dict[str, int]
    shards: list[TokenShard]


class BuildStopped(Exception):
    """The build is over: leave the unit."""


def run(units: list[Unit], job: BuildJob, *, workers: int, report: Report) -> Iterator[tuple[Unit, Receipt]]:
    """Do all `units`, with at most `workers` processes; yields each one as it is finished, in any order.

    Raises:
        HeadwayError: a worker process died.
    """
    workers = min(workers, len(units))
    if workers <= 1:
        with tokenizers.one_core():
            tokenizer = tokenizers.load(job.folder / TOKENIZER)
            for unit in units:
                yield unit, process(unit, job, tokenizer, report)
        return
    context = multiprocessing.get_context("spawn")
    counters, stop = context.Array("q", 2), context.Event()
    seen = (0, 0)
    with ProcessPoolExecutor(workers, context, _start, (job, counters, stop)) as pool:
        pending = {pool.submit(_do, unit): unit for unit in units}
        try:
            while pending:
                done, _ = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
                now = (counters[0], counters[1])
                report(now[0] - seen[0], now[1] - seen[1])
                seen = now
                for future in done:
                    yield pending.pop(future), future.result()
        except BrokenProcessPool as error:
            raise HeadwayError(
                "a worker of the build died: for want of memory (run it again with fewer workers; finished shards are "
                'kept), or because a script builds outside of `if __name__ == "__main__":`'
            ) from error
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def process(unit: Unit, job: BuildJob, tokenizer: Tokenizer, report: Report) -> Receipt:
    """Tokenize one unit into its shards and write its receipt.

    Raises:
        DataError: an input file changed since the build was planned.
    """
    end = tokenizers.end_of_document(tokenizer)
    vocabulary = tokenizer.get_vocab_size()
    counts: Counter[Split] = Counter()
    dropped: Counter[str] = Counter()
    with ExitStack() as stack:
        writers: dict[Split, Writer] = {}
        for batch in _batches(_documents(unit, job, dropped, report)):
            encodings = tokenizer.encode_batch_fast([document.text for document in batch])
            ids: dict[Split, list[int]] = {}
            for document, encoding in zip(batch, encodings, strict=True):
                split: Split = "held_out" if document.held_out(job.held_out_share) else "train"
                counts[split] += 1
                found = ids.setdefault(split, [])
                found += encoding.ids
                found.append(end)
            for split, found in ids.items():
                if split not in writers:
                    file = stack.enter_context(replacing(job.folder / SHARDS / _shard_name(unit, split), durable=False))
                    writers[split] = Writer(file, vocabulary, job.tokenizer_sha256)
                writers[split].append(found)
            report(0, sum(map(len, ids.values())))
        inputs = [_sha256(span) for span in unit.spans]
        _check_unchanged(unit)
        written = {split: writers[split].finish() for split in sorted(writers)}
    receipt = Receipt(
        tokenizer_sha256=job.tokenizer_sha256,
        inputs=inputs,
        documents=counts["train"],
        held_out_documents=counts["held_out"],
        dropped=dict(sorted(dropped.items())),
        shards=[
            TokenShard(
                name=_shard_name(unit, split),
                source=unit.source,
                split=split,
                tokens=shard.tokens,
                bytes=shard.size,
                sha256=shard.sha256,
            )
            for split, shard in written.items()
        ],
    )
    with replacing(_receipt_path(job, unit), durable=False) as file:
        file.write(receipt.model_dump_json(indent=1).encode())
    return receipt


def finished(unit: Unit, job: BuildJob) -> Receipt | None:
    """The receipt of `unit`, if it has one, and its shards are there with the SHA-256 that it names."""
    try:
        receipt = Receipt.model_validate_json(_receipt_path(job, unit).read_bytes())
        sound = receipt.tokenizer_sha256 == job.tokenizer_sha256 and all(
            tokenizers.sha256(job.folder / SHARDS / shard.name) == shard.sha256 for shard in receipt.shards
        )
    except (OSError, ValueError):
        return None
    return receipt if sound else None


def _shard_name(unit: Unit, split: Split) -> str:
    return f"{unit.name}.{split}.tokens"


def _receipt_path(job: BuildJob, unit: Unit) -> Path:
    return job.folder / RECEIPTS / f"{unit.name}.json"


def _documents(unit: Unit, job: BuildJob, dropped: Counter[str], report: Report) -> Iterator[Document]:
    for span in unit.spans:
        yield from read_documents(span, unit.text_key, job.longest, dropped)
        report(span.size, 0)


def _batches(found: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in found:
        batch.append(document)
        size += len(document.raw)
        if size >= BATCH_BYTES or len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _sha256(span: FileSpan) -> str:
    """SHA-256 of the bytes of a span; of a parquet file's spans, the first stands for the whole file."""
    left = span.stop - span.start
    if span.file.kind == "parquet":
        left = 0 if span.start else span.file.size
    digest = hashlib.sha256()
    try:
        with open(span.file.path, "rb") as file:  # noqa: PTH123 - a path is text here
            file.seek(0 if span.file.kind == "parquet" else span.start)
            while left and (chunk := file.read(min(left, 1 << 20))):
                digest.update(chunk)
                left -= len(chunk)
    except OSError as error:
        raise DataError(f"{span.file.path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _check_unchanged(unit: Unit) -> None:
    for span in unit.spans:
        try:
            status = os.stat(span.file.path)  # noqa: PTH116 - a path is text here
        except OSError:
            status = None
        if status is None or (status.st_size, status.st_mtime_ns) != (span.file.size, span.file.modified):
            raise DataError(f"{span.file.path}: changed while the build was reading it; run the build again")


_here: dict[str, Any] = {}
"""What `_start` leaves for `_do`, in a worker process."""


def _start(job: BuildJob, counters: Any, stop: Any) -> None:
    """Set a worker process up: one core, no answer to Ctrl-C, and gone when its parent is."""
    os.environ[tokenizers.PARALLELISM] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()

    def report(size: int, tokens: int) -> None:
        if stop.is_set():
            raise BuildStopped
        with counters.get_lock():
            counters[0] += size
            counters[1] += tokens

    _here.update(job=job, tokenizer=tokenizers.load(job.folder / TOKENIZER), report=report)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(unit: Unit) -> Receipt:
    return process(unit, _here["job"], _here["tokenizer"], _here["report"])
