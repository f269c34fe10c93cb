"""The history of a run: attempts, checkpoints that count, and decisions, as a pure function of journal entries."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from headway.runs.entries import Claimed, Committed, Decided, Ended, Entry, Pruned
from headway.runs.hashlog import Damaged


@dataclass
class Attempt:
    """One attempt, from its claim to its end."""

    number: int
    claim: Claimed
    commits: list[Committed] = field(default_factory=list)
    decisions: list[Decided] = field(default_factory=list)
    end: Ended | None = None
    tokens_before: int = 0
    """Tokens of the newest checkpoint at its claim."""

    @property
    def outcome(self) -> str:
        """`done`, `preempted`, `failed`, or `open` if no end is recorded: it runs or was killed."""
        return self.end.outcome if self.end else "open"

    @property
    def is_rollback(self) -> bool:
        """Whether it trains nothing, and only records that a person goes back to a checkpoint."""
        return any(decision.by for decision in self.decisions)


@dataclass
class History:
    """The history of a run."""

    attempts: list[Attempt]
    commits: list[Committed]
    """Checkpoints that count, oldest first: neither pruned nor rolled back."""
    rolled_back: list[Committed]
    """Checkpoints that a roll-back undid and retention has not pruned."""
    pruned: set[str]
    """Keys of the manifests that retention has pruned."""
    decisions: list[Decided]
    damaged: list[Damaged]
    bad_batches: list[Decided] = field(default_factory=list)
    """Decisions about bad batches that hold: no person went back to before their batches."""
    positions: list[int] = field(default_factory=list)
    """Positions of all checkpoints that no roll-back undid, pruned or not, oldest first [tokens]."""

    def attempts_of(self, launch: str) -> list[Attempt]:
        """The attempts of a launch to train: none if it never claimed the run, several if it rolled back."""
        return [each for each in self.attempts if each.claim.holder.launch == launch and not each.is_rollback]

    @property
    def done(self) -> bool:
        """Whether the run has trained its whole budget."""
        return bool(self.attempts) and self.attempts[-1].outcome == "done"

    @property
    def requested_rollback(self) -> Decided | None:
        """The decision of a person right before the newest attempt, which is the first to follow it."""
        before = self.attempts[-2] if len(self.attempts) > 1 else None
        return before.decisions[-1] if before and before.is_rollback else None

    @property
    def tokens(self) -> int:
        """Tokens of the newest checkpoint that counts."""
        return self.commits[-1].tokens if self.commits else 0

    def skip_decision(self, tokens: int) -> Decided | None:
        """The decision to skip the batch that starts at `tokens`; None if it is not skipped."""
        return next((d for d in self.bad_batches if d.skip_from <= tokens < d.skip_to), None)


def fold(entries: Sequence[Entry | Damaged]) -> History:
    """Fold journal entries into a history."""
    history = History([], [], [], set(), [], [])
    attempts: dict[int, Attempt] = {}
    for entry in entries:
        match entry:
            case Damaged():
                history.damaged.append(entry)
            case Claimed():
                attempts[entry.attempt] = Attempt(entry.attempt, entry, tokens_before=history.tokens)
            case Committed():
                history.commits.append(entry)
                history.positions.append(entry.tokens)
                if entry.attempt in attempts:
                    attempts[entry.attempt].commits.append(entry)
            case Decided():
                _decide(history, entry)
                if entry.attempt in attempts:
                    attempts[entry.attempt].decisions.append(entry)
            case Pruned():
                history.pruned.update(entry.manifests)
                history.commits = [c for c in history.commits if c.manifest not in history.pruned]
                history.rolled_back = [c for c in history.rolled_back if c.manifest not in history.pruned]
            case Ended():
                if entry.attempt in attempts:
                    attempts[entry.attempt].end = entry
    history.attempts = list(attempts.values())
    return history


def _decide(history: History, decision: Decided) -> None:
    """Apply a decision: a roll-back undoes the checkpoints after it, and a person's the decisions after it, too."""
    history.decisions.append(decision)
    if decision.by is None:
        history.bad_batches.append(decision)
    if decision.restored is None:
        return
    restored = decision.restored
    if decision.by is not None:
        history.bad_batches = [each for each in history.bad_batches if each.skip_from < restored]
    history.rolled_back += [c for c in history.commits if c.tokens > restored]
    history.commits = [c for c in history.commits if c.tokens <= restored]
    history.positions = [tokens for tokens in history.positions if tokens <= restored]
