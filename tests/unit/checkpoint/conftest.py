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


class Keeping:
    """A run that saves checkpoints as a rank does, one after another."""

    def __init__(self, store: Store, ranks: Collectives, keep: int) -> None:
        self.run = Run(store, "run")
        holder = Holder(host="h", pid=1, started=1, launch="x")
        self.attempt = self.run.journal.claim(lambda: None, holder=holder, recipe="r").seq
        environment = Environment(device="d", precision="fp32", threads=1, torch="0", headway="0")
        self.announced: list[int] = []
        self.saver = Saver(
            self.run,
            Lineage(self.attempt, "r", "d", environment),
            ranks,
            retention=Retention(keep),
            announce=lambda tokens, _warning: self.announced.append(tokens),
        )

    def save(self, tokens: int, tensors: Tensors | None = None) -> Committed:
        """Save, wait until it is done, and return its commit."""
        found = {"model.w": torch.full((4, 4), float(tokens))} if tensors is None else tensors
        self.saver.save(tokens, found, Progress(seed=0, updates=tokens), "")
        self.saver.wait()
        return self.run.history().commits[-1]


Keep = Callable[..., Keeping]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Collectives]:
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
def keeping(store: FolderStore, ranks: Collectives) -> Keep:
    """Makes runs: `keeping(keep=3, store=store)`."""

    def make(keep: int = 3, store: Store = store) -> Keeping:
        return Keeping(store, ranks, keep)

    return make
