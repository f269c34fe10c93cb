"""What an attempt saves: the state after the last trained batch, under its position, and only if it is finite."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.memory import MemoryStore
from torch._C._distributed_c10d import HashStore

from headway.checkpoint.collectives import Collectives
from headway.checkpoint.manifest import Environment
from headway.checkpoint.reader import StoredCheckpoint
from headway.errors import HeadwayError
from headway.events.training_events import CheckpointRefused
from headway.model import ARCHITECTURES, initialize
from headway.recipe import parse
from headway.runs import Holder, Run
from headway.train.checkpointer import Checkpointer
from headway.train.claim import Claim
from headway.train.clock import Clock
from headway.train.compute.optimizer import build_optimizer
from headway.train.compute.state import State

TEXT = """\
name: tiny
model: {layers: 1, width: 8, heads: 1, kv_heads: 1, ffn_width: 8}
data: {block_tokens: 64}
train: {tokens: 8192, batch_tokens: 1024, micro_batch_tokens: 128}
"""


@pytest.fixture(scope="module")
def collectives() -> Iterator[Collectives]:
    """A group in which this process is the only rank."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    assert dist.group.WORLD is not None
    yield Collectives(dist.group.WORLD)
    dist.destroy_process_group()


class Training:
    """A rank that trains nothing, and its checkpointer with a real saver and store."""

    def __init__(self, collectives: Collectives) -> None:
        recipe = parse(TEXT)
        model = ARCHITECTURES[recipe.model.kind].build(recipe.model, 32, 16)
        initialize(model, recipe.seed)
        self.state = State(recipe, model, build_optimizer(recipe, model, torch.device("cpu")))
        self.run = Run(MemoryStore(), "run")
        holder = Holder(host="h", pid=1, started=1, launch="x")
        attempt = self.run.claim(holder, recipe, "data").attempt
        self.events: list[Any] = []
        rank: Any = SimpleNamespace(
            recipe=recipe,
            run=self.run,
            state=self.state,
            collectives=collectives,
            save_collectives=collectives,
            dataset=SimpleNamespace(digest="data"),
            environment=Environment(device="d", precision="fp32", threads=1, torch="0", headway="0"),
        )
        reporter: Any = SimpleNamespace(emit=self.events.append)
        ledger: Any = SimpleNamespace(lines=lambda _: "")
        claim = Claim(holder, attempt, self.run.history())
        self.checkpointer = Checkpointer(rank, claim, Clock(0.0), reporter, ledger)

    def train(self, position: int) -> None:
        """Train a batch that ends at `position`."""
        self.state.on_update(1.0)
        self.checkpointer.on_step(position, 1.0)

    def skip(self, position: int) -> None:
        """Skip the batch of 1,024 tokens at `position`."""
        self.checkpointer.recovery_point.hold()
        self.state.skipped.add((position, position + 1024))

    def break_state(self, value: float = math.nan) -> None:
        """Put a value that is not finite into one parameter."""
        with torch.no_grad():
            self.state.parameters["norm.weight"][3] = value

    @property
    def commits(self) -> list[int]:
        """The positions of the committed checkpoints."""
        self.checkpointer.await_save()
        return [commit.tokens for commit in self.run.history().commits]

    @property
    def refusals(self) -> list[CheckpointRefused]:
        """The saves that were refused."""
        return [event for event in self.events if isinstance(event, CheckpointRefused)]


@pytest.fixture
def training(collectives: Collectives) -> Iterator[Training]:
    """A training on this process as the only rank."""
    training = Training(collectives)
    yield training
    training.checkpointer.close()


def test_skipped_batches_do_not_move_a_checkpoint(training: Training) -> None:
    """A save among skipped batches commits the last trained position, with the progress of then, and only once."""
    training.train(1024)
    training.skip(1024)
    training.state.last_evaluation, training.state.held_out = 2048, math.nan
    training.skip(2048)
    training.checkpointer.save()
    training.checkpointer.save()
    assert training.commits == [1024]
    progress = StoredCheckpoint(training.run.store, training.run.history().commits[-1]).manifest.progress
    assert (progress.updates, progress.skipped, progress.evaluated, progress.held_out) == (1, (), 0, None)
    training.train(4096)
    training.checkpointer.save()
    assert training.commits == [1024, 4096]
    progress = StoredCheckpoint(training.run.store, training.run.history().commits[-1]).manifest.progress
    assert (progress.updates, progress.skipped) == (2, ((1024, 2048), (2048, 3072)))


def test_nothing_is_saved_before_the_first_trained_batch(training: Training) -> None:
    """A run whose first batches are skipped still stands at its beginning."""
    training.skip(0)
    training.checkpointer.save()
    assert training.commits == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_state_that_is_not_finite_is_refused(training: Training, value: float) -> None:
    """The log names the tensor and the position; no object is written, and a sound state is saved again."""
    training.train(1024)
    training.checkpointer.save()
    before = [*training.run.store.list("")] if training.commits else []
    training.train(2048)
    training.break_state(value)
    training.checkpointer.save()
    assert training.commits == [1024]
    assert [*training.run.store.list("")] == before
    assert training.refusals == [CheckpointRefused(at=2048, problem="model.norm.weight on rank 0 is not finite")]
    training.break_state(0.5)
    training.train(3072)
    training.checkpointer.save()
    assert training.commits == [1024, 3072]


def test_moments_that_are_not_finite_are_refused(training: Training) -> None:
    """Finite parameters with an infinite moment would be restored to a state that cannot be trained."""
    training.train(1024)
    parameter = training.state.parameters["norm.weight"]
    training.state.optimizer.state[parameter]["exp_avg_sq"][0] = math.inf
    training.checkpointer.save()
    assert training.commits == []
    assert "optimizer.exp_avg_sq.norm.weight" in training.refusals[0].problem


def test_a_state_that_is_not_finite_on_another_rank_is_refused(training: Training) -> None:
    """No rank saves what is sound on this rank only. The other rank is a double: its shard is all that matters."""
    training.train(1024)
    training.checkpointer.collectives = SimpleNamespace(
        all_gather=lambda own: [own, "model.head.weight"], is_rank0=True
    )  # type: ignore[assignment]
    training.checkpointer.save()
    training.checkpointer.collectives = training.checkpointer.saver.collectives
    assert training.commits == []
    assert training.refusals[0].problem == "model.head.weight on rank 1 is not finite"


def test_a_refused_state_is_refused_once_while_batches_are_skipped(training: Training) -> None:
    """The limit of decisions ends that run, or a rollback restores it; saves that are due meanwhile say nothing."""
    training.train(1024)
    training.break_state()
    for position in (1024, 2048, 3072):
        training.checkpointer.save()
        training.skip(position)
    assert len(training.refusals) == 1


def test_a_run_that_stays_not_finite_while_it_trains_ends(training: Training) -> None:
    """Its losses are finite, so no decision would end it, and all that it trains would be lost."""
    training.train(1024)
    training.checkpointer.save()
    training.break_state()
    training.train(2048)
    training.checkpointer.save()
    training.train(3072)
    with pytest.raises(HeadwayError, match="at 3,072 tokens is not finite, and nothing after 1,024 tokens was saved"):
        training.checkpointer.save()
    assert training.commits == [1024]


def test_a_run_does_not_end_as_done_with_a_state_that_is_not_finite(training: Training) -> None:
    """The last save is refused with an error that names the checkpoints to go back to."""
    training.train(1024)
    training.checkpointer.save()
    training.break_state()
    training.train(8192)
    with pytest.raises(HeadwayError, match=r"--from-tokens N goes back to a checkpoint: 0, 1024$"):
        training.checkpointer.save_last(8192)
    assert training.commits == [1024]


def test_batches_that_are_skipped_at_the_end_count_if_the_held_out_loss_is_finite(training: Training) -> None:
    """The held-out loss of the last state shows that the batches were at fault, so the run is done."""
    training.train(7168)
    training.checkpointer.save()
    training.skip(7168)
    training.state.held_out = 2.5
    training.checkpointer.save_last(8192)
    assert training.commits == [7168, 8192]


def test_a_run_whose_last_batches_and_held_out_loss_are_not_finite_diverged(training: Training) -> None:
    """What was trained before is committed, under its position, and the run fails."""
    training.train(7168)
    training.skip(7168)
    training.state.held_out = math.nan
    with pytest.raises(HeadwayError, match="diverged: the held-out loss at 8,192 tokens is nan"):
        training.checkpointer.save_last(8192)
    assert training.commits == [7168]
