"""The state of a run besides its position: parameters, slots of the optimizer, number of updates, recent losses."""

from dataclasses import dataclass, field

import torch
from torch.distributed.tensor import DTensor

from headway.checkpoint.manifest import Progress
from headway.checkpoint.reader import PARAMETER_PREFIX, StoredCheckpoint
from headway.checkpoint.restore import restore
from headway.errors import UsageError
from headway.model import LanguageModel, initialize
from headway.recipe import Recipe
from headway.train.compute.optimizer import OPTIMIZERS


@dataclass
class State:
    """The state that training changes."""

    recipe: Recipe
    model: LanguageModel
    optimizer: torch.optim.Optimizer
    updates: int = 0
    losses: list[float] = field(default_factory=list)
    """Losses of the last batches, the window for spikes [nats per token]."""
    held_out: float | None = None
    """Held-out loss of the last evaluation [nats per token]."""
    last_evaluation: int = 0
    """Position of the last evaluation [tokens]."""
    skipped: set[tuple[int, int]] = field(default_factory=set)
    """Ranges of positions that decisions skipped [tokens]."""

    def __post_init__(self) -> None:
        """Keep the sharded parameters: between forward and backward, the model itself has gathered ones."""
        self.parameters = dict(self.model.named_parameters())
        self.spec = OPTIMIZERS[self.recipe.train.optimizer.kind]

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors of a checkpoint, by name.

        Raises:
            UsageError: the optimizer keeps state that it does not declare, and that a resume would lose.
        """
        declared = {*self.spec.slots, *self.spec.counters}
        for name, parameter in self.parameters.items():
            if undeclared := self.optimizer.state[parameter].keys() - declared:
                raise UsageError(
                    f"train.optimizer.kind {self.recipe.train.optimizer.kind} keeps {', '.join(sorted(undeclared))} "
                    f"of {name}, which no checkpoint would hold; its OptimizerSpec must declare all that it keeps"
                )
        return {f"{PARAMETER_PREFIX}{name}": parameter.detach() for name, parameter in self.parameters.items()} | {
            f"optimizer.{slot}.{name}": self.optimizer.state[parameter][slot]
            for slot in self.spec.slots
            for name, parameter in self.parameters.items()
        }

    def nonfinite(self) -> str | None:
        """The name of a tensor that holds a NaN or an infinity on this rank; None if all of its shards are finite.

        One pass over the shards, at memory speed.
        """
        shards = {
            name: tensor.to_local() if isinstance(tensor, DTensor) else tensor
            for name, tensor in self.tensors().items()
        }
        names = [name for name, shard in shards.items() if shard.numel()]
        if not names:
            return None
        extremes = torch.stack([torch.stack(shards[name].aminmax()).double() for name in names])  # both NaN if one is
        sound = extremes.isfinite().all(dim=1).tolist()
        return next((name for name, is_finite in zip(names, sound, strict=True) if not is_finite), None)

    def progress(self) -> Progress:
        """All of a checkpoint's state that is not a tensor."""
        window = self.losses[-self.recipe.train.stability.spike_window :]
        return Progress(
            seed=self.recipe.seed,
            updates=self.updates,
            losses=tuple(window),
            held_out=self.held_out,
            evaluated=self.last_evaluation,
            skipped=tuple(sorted(self.skipped)),
        )

    def load(self, checkpoint: StoredCheckpoint) -> None:
        """Load the state from `checkpoint`.

        Raises:
            DamageError: the checkpoint is damaged. The state is then undefined until the next `load` or `reset`.
        """
        restore(checkpoint, self.tensors())
        progress = checkpoint.manifest.progress
        self.losses, self.held_out, self.last_evaluation = list(progress.losses), progress.held_out, progress.evaluated
        self.skipped = set(progress.skipped)
        self._set_updates(progress.updates)

    def reset(self) -> None:
        """Set the state at position 0."""
        initialize(self.model, self.recipe.seed)
        for name, tensor in self.tensors().items():
            if not name.startswith(PARAMETER_PREFIX):
                tensor.zero_()
        self.losses, self.held_out, self.last_evaluation, self.skipped = [], None, 0, set()
        self._set_updates(0)

    def on_update(self, loss: float) -> None:
        """Record an optimizer step on a batch with this mean loss [nats per token]."""
        self.updates += 1
        self.losses = [*self.losses[-self.recipe.train.stability.spike_window + 1 :], loss]

    def _set_updates(self, updates: int) -> None:
        self.updates = updates
        for state in self.optimizer.state.values():
            for counter in self.spec.counters:
                state[counter].fill_(float(updates))
