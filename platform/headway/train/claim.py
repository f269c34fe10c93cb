"""The claim of a run: the act by which an attempt becomes the run's only writer."""

from dataclasses import dataclass

from headway.runs import History, Holder
from headway.train.rank import Rank


@dataclass(frozen=True)
class Claim:
    """The claim of one attempt, the same on every rank."""

    holder: Holder
    """The process that holds the run."""
    number: int
    """Number of the attempt: the claim's sequence number in the journal."""
    history: History
    """The run's history up to the claim."""


def claim_run(rank: Rank, holder: Holder, *, take_over: bool, predecessor: int | None = None) -> Claim:
    """Claim the run for a new attempt. After a rollback, `predecessor` is the attempt that rolled back. Collective.

    Raises:
        HeldError: a live process is training the run.
        FencedError: another process has claimed the run since the predecessor.
    """
    run, recipe, data = rank.run, rank.recipe, rank.dataset.digest
    number: int = rank.collectives.on_rank0(
        lambda: run.claim(holder, recipe, data, take_over=take_over, follows=predecessor).seq
    )
    return Claim(holder, number, run.history(upto=number))
