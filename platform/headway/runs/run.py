"""One run in a store: its frozen recipe, its journal, and the right to write to it."""

import time

from headway import recipe as recipes
from headway.errors import DamageError, ExistingObject, FencedError, HeldError, MissingObject, RecipeError, UsageError
from headway.objectstore.protocol import Store
from headway.recipe import Recipe
from headway.runs import keys, liveness
from headway.runs.entries import Claimed, Holder
from headway.runs.history import Attempt, History, fold
from headway.runs.journal import Journal

GRACE_SECONDS = 30.0
"""How long a claim counts as alive while it has no heartbeat [s]."""


class Run:
    """A run, which exists from the moment that its recipe is frozen."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.journal = Journal(store, name)

    @classmethod
    def existing(cls, store: Store, name: str) -> "Run":
        """A run that must exist.

        Raises:
            UsageError: it does not.
        """
        run = cls(store, name)
        try:
            store.size(keys.recipe(name))
        except MissingObject:
            there = run_names(store)
            raise UsageError(
                f"no run {name} in {store.url}; "
                + (f"there are: {', '.join(there[:10])}" if there else "there are none")
            ) from None
        return run

    def freeze(self, recipe: Recipe) -> None:
        """Make `recipe` the run's own, or see that it means the same as the one it has.

        Raises:
            RecipeError: the run has a recipe of another meaning; names each difference.
        """
        try:
            self.store.create(keys.recipe(self.name), recipes.to_yaml(recipe).encode())
        except ExistingObject:
            if changes := recipes.differences(self.recipe(), recipe):
                raise RecipeError(
                    f"run {self.name} was begun with a recipe of another meaning: {'; '.join(changes)}. "
                    f"Undo the change, or begin a new run with --run NAME"
                ) from None

    def recipe(self) -> Recipe:
        """The frozen recipe.

        Raises:
            DamageError: it is not what the run was begun with.
        """
        key = keys.recipe(self.name)
        try:
            recipe = recipes.parse(self.store.get(key).decode(), origin=key)
        except (RecipeError, UnicodeDecodeError) as error:
            raise DamageError(f"{key}: not readable as a recipe: {error}") from error
        begun = next((entry for entry in self.journal.read() if isinstance(entry, Claimed)), None)
        if begun and begun.recipe != recipes.digest(recipe):
            raise DamageError(f"{key}: is not the recipe that this run was begun with")
        return recipe

    def history(self, upto: int | None = None) -> History:
        """The run's past, as the journal has it now, or as it was after entry `upto`."""
        return fold(self.journal.read()[:upto])

    def alive(self, attempt: Attempt) -> bool:
        """Whether somebody works on an attempt, as far as can be seen from here."""
        if attempt.ended:
            return False
        here = liveness.is_alive(attempt.claim.holder)
        if here is not None:
            return here
        beat = liveness.read_heartbeat(self.store, self.name)
        if beat is None or beat.attempt != attempt.number:  # too young to have a heartbeat, or a zombie wrote last
            return time.time() - attempt.claim.time < GRACE_SECONDS
        return beat.fresh

    def check_free(self, holder: Holder | None = None) -> None:
        """See that nobody alive holds the run. A requeued job takes over from what it was before by itself.

        Raises:
            HeldError: somebody does; says who, and how to take over.
            FencedError: this process belongs to a job that was requeued since, and runs elsewhere now.
        """
        history = self.history()
        if not history.attempts or history.attempts[-1].ended:
            return
        last = history.attempts[-1].claim
        if holder and last.holder.launch == holder.launch:
            return
        if holder and holder.job and last.holder.job == holder.job:
            if last.holder.restart > holder.restart:
                raise FencedError(
                    f"run {self.name}: job {holder.job} was requeued and trains on as {last.holder}; "
                    f"this is what was left of it before, and must leave"
                )
            return
        if self.alive(history.attempts[-1]):
            raise HeldError(
                f"run {self.name} is being trained by {last.holder}, attempt {last.attempt}. "
                f"Stop that one first, or fence it off with --take-over"
            )

    def claim(
        self, holder: Holder, recipe: Recipe, data: str, *, take_over: bool = False, follows: int | None = None
    ) -> Claimed:
        """Begin an attempt: from here on no earlier one can write.

        An attempt that `follows` another of the same process, after a roll-back, begins only if nobody came between.

        Raises:
            HeldError: somebody alive holds the run, and `take_over` is not set.
            FencedError: somebody claimed the run after the attempt that this one follows.
        """

        def check() -> None:
            if follows is not None:
                self.journal.check_unfenced(follows)
            elif not take_over:
                self.check_free(holder)

        return self.journal.claim(
            check, holder=holder, recipe=recipes.digest(recipe), data=data, lost_at=self._lost_at()
        )

    def _lost_at(self) -> float | None:
        """When an attempt that never said how it ended was last seen."""
        attempts = self.history().attempts
        if not attempts or attempts[-1].ended:
            return None
        seen = [attempts[-1].claim.time, *(commit.time for commit in attempts[-1].commits)]
        beat = liveness.read_heartbeat(self.store, self.name)
        if beat and beat.attempt == attempts[-1].number:
            seen.append(beat.time)
        return max(seen)


def run_names(store: Store) -> list[str]:
    """Names of the runs in a store."""
    return list(store.folders(keys.runs()))
