"""One run in a store: its frozen recipe, its journal, and claims of it."""

import time

from headway import recipe as recipes
from headway.errors import (
    DamageError,
    ExistingObject,
    FencedError,
    HeldError,
    MissingObject,
    RecipeError,
    UnknownKindError,
    UsageError,
)
from headway.objectstore.protocol import Store, read_document
from headway.recipe import Recipe
from headway.runs import keys, liveness
from headway.runs.entries import Claimed, Holder
from headway.runs.history import Attempt, History, fold
from headway.runs.journal import Journal

GRACE_SECONDS = 30.0
"""Time for which an attempt without a heartbeat counts as alive [s]."""
RECIPE_BYTES = 1 << 20
"""Longest recipe [bytes]."""


class Run:
    """A run. It exists once its recipe is frozen."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.journal = Journal(store, name)

    @classmethod
    def open(cls, store: Store, name: str) -> "Run":
        """Open an existing run.

        Raises:
            UsageError: it does not exist.
        """
        run = cls(store, name)
        try:
            store.size(keys.recipe(name))
        except MissingObject:
            names = run_names(store)
            raise UsageError(
                f"no run {name} in {store.url}; "
                + (f"there are: {', '.join(names[:10])}" if names else "there are none")
            ) from None
        return run

    def freeze(self, recipe: Recipe) -> None:
        """Store the run's recipe, or check that the stored one has the same meaning.

        Raises:
            RecipeError: the stored recipe has another meaning; names each difference.
        """
        try:
            self.store.create(keys.recipe(self.name), recipes.to_yaml(recipe).encode())
        except ExistingObject:
            if changes := recipes.differences(self.recipe(), recipe):
                raise RecipeError(
                    f"run {self.name} has a recipe of another meaning: {'; '.join(changes)}. "
                    f"Undo the change, or start a new run with --run NAME"
                ) from None

    def recipe(self) -> Recipe:
        """The recipe that is stored with the run, and that never changes.

        Raises:
            DamageError: the stored recipe is not the one that the run was started with.
            UnknownKindError: it names a kind of optimizer or model that no installed package has.
        """
        key = keys.recipe(self.name)
        try:
            recipe = recipes.parse(read_document(self.store, key, RECIPE_BYTES).decode(), origin=key)
        except UnknownKindError:
            raise  # it is sound, and a package is missing here
        except (RecipeError, UnicodeDecodeError) as error:
            raise DamageError(f"{key}: not readable as a recipe: {error}") from error
        first_claim = next((entry for entry in self.journal.read() if isinstance(entry, Claimed)), None)
        if first_claim and first_claim.recipe != recipes.digest(recipe):
            raise DamageError(f"{key}: is not the recipe that this run was started with")
        return recipe

    def history(self, upto: int | None = None) -> History:
        """The run's history now, or as it was after entry `upto`."""
        return fold(self.journal.read()[:upto])

    def is_alive(self, attempt: Attempt) -> bool:
        """Whether an attempt runs, as far as this host can see."""
        if attempt.end:
            return False
        local = liveness.is_alive(attempt.claim.holder)
        if local is not None:
            return local
        beat = liveness.read_heartbeat(self.store, self.name)
        if beat is None or beat.attempt != attempt.number:  # too young for a heartbeat, or a zombie wrote last
            return time.time() - attempt.claim.time < GRACE_SECONDS
        return beat.fresh

    def check_free(self, holder: Holder | None = None, *, patient: bool = False) -> None:
        """Check that no live process holds the run. A requeued job may always take over from its earlier start.

        If the last heartbeat is old and from another host, a `patient` check waits for the next one.

        Raises:
            HeldError: a process holds it; names the process, and how to take over.
            FencedError: this process's job was requeued and runs elsewhere now.
        """
        history = self.history()
        if not history.attempts or history.attempts[-1].end:
            return
        attempt = history.attempts[-1]
        last = attempt.claim
        if holder and last.holder.launch == holder.launch:
            return
        if holder and holder.job and last.holder.job == holder.job:
            if last.holder.restart > holder.restart:
                raise FencedError(
                    f"run {self.name}: job {holder.job} was requeued and continues as {last.holder}; "
                    f"this process is from before the requeue and must exit"
                )
            return
        if self.is_alive(attempt) or (patient and self._beats_again(attempt)):
            raise HeldError(
                f"run {self.name} is being trained by {last.holder}, attempt {last.attempt}. "
                f"Stop it first, or fence it with --take-over"
            )

    def claim(
        self, holder: Holder, recipe: Recipe, data: str, *, take_over: bool = False, follows: int | None = None
    ) -> Claimed:
        """Start an attempt. From here on no earlier attempt can write.

        After a roll-back, the new attempt `follows` one of the same process, and no other may have come between.

        Raises:
            HeldError: a live process holds the run, and `take_over` is not set.
            FencedError: another process claimed the run after the attempt that this one follows.
        """

        def check() -> None:
            if follows is not None:
                self.journal.check_unfenced(follows)
            elif not take_over:
                self.check_free(holder, patient=True)

        return self.journal.claim(
            check, holder=holder, recipe=recipes.digest(recipe), data=data, lost_at=self._lost_at()
        )

    def _beats_again(self, attempt: Attempt) -> bool:
        """Whether an attempt on another host with an old heartbeat writes the next one."""
        elsewhere = liveness.is_alive(attempt.claim.holder) is None
        return elsewhere and liveness.beats_again(self.store, self.name, attempt.number)

    def _lost_at(self) -> float | None:
        """When the last attempt was last seen alive [s since 1970]; None if its end is recorded."""
        attempts = self.history().attempts
        if not attempts or attempts[-1].end:
            return None
        times = [attempts[-1].claim.time, *(commit.time for commit in attempts[-1].commits)]
        beat = liveness.read_heartbeat(self.store, self.name)
        if beat and beat.attempt == attempts[-1].number:
            times.append(beat.time)
        return max(times)


def run_names(store: Store) -> list[str]:
    """Names of the runs in a store."""
    return [name for name in store.folders(keys.runs()) if keys.NAME.fullmatch(name)]


def strays_among_runs(store: Store) -> list[str]:
    """A finding for each thing in the place of a run that is none."""
    wrong = [name for name in store.folders(keys.runs()) if not keys.NAME.fullmatch(name)]
    return [f"{keys.runs()}{name}: is not a name for a run" for name in wrong] + [
        f"{place}: {problem}" for place, problem in store.strays(keys.runs(), deep=False)
    ]
