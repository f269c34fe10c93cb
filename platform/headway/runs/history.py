"""What a journal says happened: attempts, the checkpoints that count, and the decisions. Pure functions of entries."""

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
    ended: Ended | None = None
    before: int = 0
    """Tokens of the newest checkpoint that counted when it claimed the run."""

    @property
    def outcome(self) -> str:
        """`done`, `preempted`, `failed`, or `open`: it runs, or was killed without a word."""
        return self.ended.outcome if self.ended else "open"


@dataclass
class History:
    """A run's past, derived from its journal."""

    attempts: list[Attempt]
    commits: list[Committed]
    """Those that count, oldest first: not pruned, and not undone by a roll-back."""
    undone: list[Committed]
    """Those that a roll-back undid, and nobody has given up yet."""
    pruned: set[str]
    decisions: list[Decided]
    damaged: list[Damaged]

    def launched(self, launch: str) -> list[Attempt]:
        """The attempts of one launch: none if it never claimed the run, several if it rolled back."""
        return [attempt for attempt in self.attempts if attempt.claim.holder.launch == launch]

    @property
    def done(self) -> bool:
        """Whether the run reached the end of its budget."""
        return bool(self.attempts) and self.attempts[-1].outcome == "done"

    @property
    def tokens(self) -> int:
        """Tokens of the newest checkpoint that counts."""
        return self.commits[-1].tokens if self.commits else 0

    def skipped(self, tokens: int) -> Decided | None:
        """The decision by which the batch that starts at `tokens` does not count."""
        return next((d for d in self.decisions if d.skip_from <= tokens < d.skip_to), None)


def fold(entries: Sequence[Entry | Damaged]) -> History:
    """Derive a run's history from its journal."""
    history = History([], [], [], set(), [], [])
    attempts: dict[int, Attempt] = {}
    for entry in entries:
        match entry:
            case Damaged():
                history.damaged.append(entry)
            case Claimed():
                attempts[entry.attempt] = Attempt(entry.attempt, entry, before=history.tokens)
            case Committed():
                history.commits.append(entry)
                if entry.attempt in attempts:
                    attempts[entry.attempt].commits.append(entry)
            case Decided():
                history.decisions.append(entry)
                if entry.restored is not None:
                    restored = entry.restored
                    history.undone += [c for c in history.commits if c.tokens > restored]
                    history.commits = [c for c in history.commits if c.tokens <= restored]
                if entry.attempt in attempts:
                    attempts[entry.attempt].decisions.append(entry)
            case Pruned():
                history.pruned.update(entry.manifests)
                history.commits = [c for c in history.commits if c.manifest not in history.pruned]
                history.undone = [c for c in history.undone if c.manifest not in history.pruned]
            case Ended():
                if entry.attempt in attempts:
                    attempts[entry.attempt].ended = entry
    history.attempts = list(attempts.values())
    return history
