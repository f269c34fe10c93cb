"""A gloo group of one rank, and checkpoints saved through it into a real store."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from headway.checkpoint.collectives import Collectives
from headway.checkpoint.commit import Lineage
from headway.checkpoint.manifest import Environment, Progress
from headway.checkpoint.retention import Retention
from headway.checkpoint.saver import Saver
from headway.objectstore import Store
from headway.objectstore.folder import FolderStore
from headway.runs import Committed, Holder, Run

Tensors = Mapping[str, torch.Tensor]


class SavingRun:
    """A run whose only rank saves checkpoints."""

    def __init__(self, store: Store, collectives: Collectives, keep: int) -> None:
        self.run = Run(store, "run")
        holder = Holder(host="h", pid=1, started=1, launch="x")
        self.attempt = self.run.journal.claim(lambda: None, holder=holder, recipe="r").seq
        environment = Environment(device="d", precision="fp32", threads=1, torch="0", headway="0")
        self.committed: list[int] = []
        self.saver = Saver(
            self.run,
            Lineage(self.attempt, "r", "d", environment),
            collectives,
            retention=Retention(keep),
            on_commit=lambda tokens, _warning: self.committed.append(tokens),
        )

    def save(self, tokens: int, tensors: Tensors | None = None) -> Committed:
        """Save a checkpoint, and return its commit."""
        state = {"model.w": torch.full((4, 4), float(tokens))} if tensors is None else tensors
        self.saver.save(tokens, state, Progress(seed=0, updates=tokens), "")
        self.saver.wait()
        return self.run.history().commits[-1]


NewRun = Callable[..., SavingRun]


@pytest.fixture(scope="module")
def collectives() -> Iterator[Collectives]:
    """A group in which this process is the only rank."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    assert dist.group.WORLD is not None
    yield Collectives(dist.group.WORLD)
    dist.destroy_process_group()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """An empty store."""
    return FolderStore(tmp_path / "store")


@pytest.fixture
def new_run(store: FolderStore, collectives: Collectives) -> NewRun:
    """Makes runs that save: `new_run(keep=3, store=store)`."""

    def make(keep: int = 3, store: Store = store) -> SavingRun:
        return SavingRun(store, collectives, keep)

    return make
