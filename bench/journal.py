"""Time to read a long journal from S3 and to open its newest checkpoint, with and without packs.

    python -m bench.journal [--entries 1000 2500 5000 10000] [--rounds 5]

Uses a real S3 server on this machine, and a new client for each reading. Prints medians of interleaved rounds.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.engines.s3.server import BUCKET, S3Server
from tests.memory import MemoryStore

from headway.checkpoint.commit import CheckpointWriter, Lineage
from headway.checkpoint.manifest import Environment, Progress
from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.shard import Piece
from headway.objectstore import open_store
from headway.runs import Committed, Holder, Journal, Pruned, Run, fold

GOAL_SECONDS = 2.0
GOAL_ENTRIES = 10_000


def write_run(entries: int, folder: Path) -> None:
    """Write a run with this many entries, saves and prunes included, directly to the bucket's folder."""
    store, name = MemoryStore(), f"run-{entries}"
    run = Run(store, name)
    claim = run.journal.claim(lambda: None, holder=Holder(host="h", pid=1, started=1, launch="x"), recipe="r").seq
    environment = Environment(device="d", precision="fp32", threads=1, torch="0", headway="0")
    for number in range(1, entries - 1):
        key = f"runs/{name}/checkpoints/{number:015d}-{claim:08d}/manifest.json"
        if number % 2:
            run.journal.append(Committed, claim, tokens=number, manifest=key, sha256="0" * 64, bytes=1)
        elif number > 4:
            before = key.replace(f"{number:015d}", f"{number - 3:015d}")
            run.journal.append(Pruned, claim, manifests=[before])
        run.journal.pack()
    last = CheckpointWriter(run, Lineage(claim, "r", "d", environment), entries)
    piece = Piece("model.w", "float32", (16,), (0,), (16,), memoryview(bytes(64)))
    last.commit([last.write_shard([piece], rank=0, world_size=1)], parent=None, progress=Progress(seed=0, updates=1))
    run.journal.pack()
    for key, data in store.objects.items():
        path = folder / "objects" / BUCKET / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read(name: str, url: str, *, packed: bool) -> tuple[float, int]:
    """Time to read a run's journal and open its newest checkpoint [s], and the number of entries."""
    began = time.perf_counter()
    store = open_store(url)
    entries = Journal(store, name, packed=packed).read()
    assert StoredCheckpoint(store, fold(entries).commits[-1]).manifest.tensors
    return time.perf_counter() - began, len(entries)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[1000, 2500, 5000, 10_000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, S3Server(Path(folder)) as server:
        os.environ.update(server.environment)
        for entries in options.entries:
            write_run(entries, Path(folder))
        seconds: dict[tuple[int, bool], list[float]] = {}
        counts: dict[int, int] = {}
        for turn in range(options.rounds):
            for entries in options.entries:
                for packed in (True, False) if turn < 2 else (True,):
                    duration, counts[entries] = read(f"run-{entries}", server.url, packed=packed)
                    seconds.setdefault((entries, packed), []).append(duration)
    print(f"{'entries':>8} {'packed s':>9} {'us/entry':>9} {'loose s':>9} {'ratio':>6}")
    for entries in options.entries:
        fast, slow = (statistics.median(seconds[entries, kind]) for kind in (True, False))
        count = counts[entries]
        print(f"{count:8,} {fast:9.2f} {1e6 * fast / count:9.0f} {slow:9.2f} {slow / fast:6.1f}")
        if entries == GOAL_ENTRIES:
            print(f"goal: {GOAL_ENTRIES:,} entries and the newest checkpoint in {GOAL_SECONDS} s: {fast:.2f} s")


if __name__ == "__main__":
    main()
