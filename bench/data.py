"""Data: building against `tokenizers.encode_batch`, reading against torch's DataLoader, and the memory of a build.

Run `python bench/data.py [--corpus-mib N]`. The competitors are interleaved in one run, so other load affects both.
Each figure is the median of `--rounds`. The corpus consists of slices of the standard library, as JSONL, plain text
and parquet.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

from headway.data import open_data
from headway.data.build import build
from headway.data.token_shard import map_tokens
from headway.recipe import Recipe

BLOCK, MICRO_BLOCKS, BATCH_BLOCKS = 1024, 8, 64
TEXT_FILES = 8
"""Files of text: each is one document, which is held out whole or not at all."""


def slices(mib: int) -> Iterator[str]:
    """Documents of 1,000 to 32,000 characters, `mib` MiB in total."""
    pool = "".join(
        path.read_text(encoding="utf-8", errors="ignore")
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    )
    random_, remaining = random.Random(0), mib << 20
    while remaining > 0:
        length = random_.randint(1_000, 32_000)
        start = random_.randrange(len(pool) - length)
        yield pool[start : start + length]
        remaining -= length


def write_corpus(folder: Path, mib: int) -> list[str]:
    """Write a corpus: half JSONL, a quarter text, a quarter parquet in one row group; returns the file names."""
    folder.mkdir()
    with (folder / "lines.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in slices(mib // 2))
    (folder / "text").mkdir()
    texts = [*slices(mib // 4)]
    for number in range(TEXT_FILES):
        (folder / "text" / f"{number}.txt").write_text("".join(texts[number::TEXT_FILES]))
    schema = pa.schema([("text", pa.large_string())])
    with pq.ParquetWriter(folder / "rows.parquet", schema) as table:
        table.write_table(pa.table({"text": list(slices(min(mib // 4, 512)))}, schema))
    return ["lines.jsonl", "text", "rows.parquet"]


def recipe(folder: Path, names: list[str], built: str) -> Recipe:
    """A recipe over the corpus in `folder`."""
    return Recipe.model_validate(
        {
            "name": "bench",
            "data": {
                "path": str(folder / built),
                "sources": {name: {"path": str(folder / "in" / name)} for name in names},
                "tokenizer": {"vocabulary": 16_384, "sample_bytes": 64 << 20},
                "block_tokens": BLOCK,
                "held_out_share": 0.05,
            },
            "model": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2, "ffn_width": 64},
            "train": {
                "tokens": 1 << 40,
                "batch_tokens": BATCH_BLOCKS * BLOCK,
                "micro_batch_tokens": MICRO_BLOCKS * BLOCK,
            },
        }
    )


def interleaved(rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """Median rates of two interleaved competitors."""
    rates = [(ours(), theirs()) for _ in range(rounds)]
    return statistics.median(a for a, _ in rates), statistics.median(b for _, b in rates)


def bench_build(folder: Path, rounds: int) -> tuple[float, float]:
    """Tokens per second on one core with a trained tokenizer: build, and encode_batch of text in memory."""
    plan = recipe(folder, ["lines.jsonl"], "built-lines")
    build(plan, workers=1)
    texts = [json.loads(line)["text"] for line in (folder / "in" / "lines.jsonl").open()]
    tokenizer = tokenizers.Tokenizer.from_file(f"{plan.data_path}/tokenizer.json")

    def ours() -> float:
        (Path(plan.data_path) / "manifest.json").unlink()
        shutil.rmtree(Path(plan.data_path) / "shards")
        # In a new process, like every build: tokenizers slow down in a process that loads them repeatedly.
        return build_in_process(folder, plan, workers=1)["rate"]

    def theirs() -> float:
        start, tokens = time.perf_counter(), 0
        for at in range(0, len(texts), 256):
            tokens += sum(len(encoding.ids) for encoding in tokenizer.encode_batch(texts[at : at + 256]))
        return tokens / (time.perf_counter() - start)

    return interleaved(rounds, ours, theirs)


def bench_read(folder: Path, rounds: int) -> tuple[float, float]:
    """Samples per second on one core: `Dataset.lane_batches`, and a shuffled DataLoader over the same tokens."""
    import torch  # not at the top: it would add to the measured memory of builds
    from torch.utils.data import DataLoader, Dataset

    class Blocks(Dataset[tuple[torch.Tensor, torch.Tensor]]):
        """The usual map-style dataset over one memory-mapped file of tokens."""

        def __init__(self, path: Path) -> None:
            self.tokens = np.memmap(path, dtype=np.uint16, mode="r")

        def __len__(self) -> int:
            return (len(self.tokens) - 1) // BLOCK

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            tokens = torch.from_numpy(self.tokens[index * BLOCK : (index + 1) * BLOCK + 1].astype(np.int64))
            return tokens[:-1], tokens[1:]

    torch.set_num_threads(1)
    dataset = open_data(recipe(folder, ["lines.jsonl"], "built-lines"))
    shards = dataset.tokenizer_path.parent / "shards"
    joined = folder / "joined.bin"
    with joined.open("wb") as file:
        for shard in dataset.manifest.select("lines.jsonl", "train"):
            file.write(map_tokens(shards / shard.name).tobytes())
    loader = DataLoader(Blocks(joined), batch_size=MICRO_BLOCKS, shuffle=True, drop_last=True)
    batches = max(1, len(Blocks(joined)) // BATCH_BLOCKS)

    def ours() -> float:
        start = time.perf_counter()
        rows = 0
        for batch in range(batches):
            for one in dataset.lane_batches(batch * BATCH_BLOCKS * BLOCK, 0):
                rows += torch.from_numpy(one.inputs).shape[0] + 0 * torch.from_numpy(one.targets).shape[0]
        return rows / (time.perf_counter() - start)

    def theirs() -> float:
        start = time.perf_counter()
        rows = sum(len(inputs) for inputs, _ in loader)
        return rows / (time.perf_counter() - start)

    ours(), theirs()  # warm up: read every page once
    return interleaved(rounds, ours, theirs)


def bench_memory(folder: Path, names: list[str], workers: int) -> tuple[float, float, float]:
    """Peak resident memory of a build's parent and of its workers [MiB], and tokens per second."""
    plan = recipe(folder, names, f"built-{workers}")
    figures = build_in_process(folder, plan, workers)
    shutil.rmtree(plan.data_path)
    return figures["parent"], figures["worker"], figures["rate"]


def build_in_process(folder: Path, plan: Recipe, workers: int) -> dict[str, float]:
    """Run `build_here` in a new process; returns what it prints."""
    (folder / "recipe.json").write_text(plan.model_dump_json())
    command = [sys.executable, __file__, "--build-here", str(folder / "recipe.json"), "--workers", str(workers)]
    figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {key: float(value) for key, value in figures.items()}


def build_here(path: Path, workers: int) -> None:
    """Build, and print tokens per second and the peak memory of the parent and of a worker [MiB]."""
    plan = Recipe.model_validate_json(path.read_text())
    highest = {"parent": 0.0, "worker": 0.0}

    def poll(*_: int) -> None:
        for child in multiprocessing.active_children():
            highest["worker"] = max(highest["worker"], peak(child.pid))

    start = time.perf_counter()
    manifest = build(plan, workers=workers, progress=poll)
    rate = sum(shard.tokens for shard in manifest.shards) / (time.perf_counter() - start)
    print(json.dumps({**highest, "parent": peak(os.getpid()), "rate": rate}))


def peak(process: int | None) -> float:
    """Peak resident memory of a process [MiB]. Not ru_maxrss, which includes the parent's memory before exec."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(peaks[0]) / 1024 if peaks else 0.0


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--corpus-mib", type=int, default=64, help="size of the corpus for the memory of a build")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--build-here", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.build_here:
        build_here(chosen.build_here, *chosen.workers)
        return
    print(f"{'':44}{'headway':>12}{'peer':>12}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "in", min(chosen.corpus_mib, 32))
        for title, (ours, theirs) in {
            "build / encode_batch [tokens/s/core]": bench_build(folder, chosen.rounds),
            "lane / DataLoader [samples/s/core]": bench_read(folder, chosen.rounds),
        }.items():
            print(f"{title:44}{ours:12,.0f}{theirs:12,.0f}{ours / theirs:8.2f}", flush=True)
        shutil.rmtree(folder / "in")
        names = write_corpus(folder / "in", chosen.corpus_mib)
        for workers in chosen.workers:
            parent, worker, rate = bench_memory(folder, names, workers)
            each = f", each worker {worker:,.0f}" if workers > 1 else ""
            print(
                f"memory of a build of {chosen.corpus_mib:,} MiB, {workers} worker(s): parent {parent:,.0f}{each} MiB; "
                f"{rate:,.0f} tokens/s including the training of its tokenizer"
            )


if __name__ == "__main__":
    main()
