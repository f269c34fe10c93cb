"""What a run is at a moment, besides its position: parameters, the optimizer's moments, updates made, recent losses."""

from dataclasses import dataclass, field

import torch

from headway.checkpoint.manifest import Progress
from headway.checkpoint.reader import PARAMETERS, StoredCheckpoint
from headway.checkpoint.restore import restore
from headway.model import Decoder, initialise
from headway.recipe import Recipe


@dataclass
class State:
    """The state that training changes."""

    recipe: Recipe
    model: Decoder
    optimizer: torch.optim.AdamW
    updates: int = 0
    losses: list[float] = field(default_factory=list)
    held_out: float | None = None
    evaluated: int = 0
    skipped: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Remember the sharded parameters: the model itself shows gathered ones between a forward and a backward."""
        self.parameters = dict(self.model.named_parameters())

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors to be saved, by their name in a checkpoint."""
        moments = {
            f"optimizer.{moment}.{name}": self.optimizer.state[parameter][moment]
            for moment in ("exp_avg", "exp_avg_sq")
            for name, parameter in self.parameters.items()
        }
        return {**{f"{PARAMETERS}{name}": parameter.detach() for name, parameter in self.parameters.items()}, **moments}

    def progress(self) -> Progress:
        """All else to be saved."""
        window = self.losses[-self.recipe.train.stability.spike_window :]
        return Progress(
            seed=self.recipe.seed,
            updates=self.updates,
            losses=tuple(window),
            held_out=self.held_out,
            evaluated=self.evaluated,
            skipped=tuple(sorted(self.skipped)),
        )

    def load(self, checkpoint: StoredCheckpoint) -> None:
        """Become what `checkpoint` holds.

        Raises:
            DamageError: it is not sound; this state is then good for nothing but another load, or `reset`.
        """
        restore(checkpoint, self.tensors())
        progress = checkpoint.manifest.progress
        self.losses, self.held_out, self.evaluated = list(progress.losses), progress.held_out, progress.evaluated
        self.skipped = set(progress.skipped)
        self._set_updates(progress.updates)

    def reset(self) -> None:
        """Become the state at zero tokens."""
        initialise(self.model, self.recipe.seed)
        for name, tensor in self.tensors().items():
            if not name.startswith(PARAMETERS):
                tensor.zero_()
        self.losses, self.held_out, self.evaluated, self.skipped = [], None, 0, set()
        self._set_updates(0)

    def updated(self, loss: float) -> None:
        """Note that the optimizer made a step, on a batch of this mean loss [nats per token]."""
        self.updates += 1
        self.losses = [*self.losses[-self.recipe.train.stability.spike_window + 1 :], loss]

    def _set_updates(self, updates: int) -> None:
        self.updates = updates
        for slots in self.optimizer.state.values():
            slots["step"].fill_(float(updates))
