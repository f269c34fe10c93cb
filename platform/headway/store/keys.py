"""The name of every object in a run store; nobody else puts one together."""


def runs() -> str:
    """Prefix of all runs."""
    return "runs/"


def recipe(run: str) -> str:
    """The frozen recipe."""
    return f"runs/{run}/recipe.yaml"


def journal(run: str) -> str:
    """Prefix of the journal."""
    return f"runs/{run}/journal/"


def entry(run: str, sequence: int) -> str:
    """One journal entry, from 1."""
    return f"{journal(run)}{sequence:08d}.json"


def checkpoints(run: str) -> str:
    """Prefix of all checkpoints, committed or not."""
    return f"runs/{run}/checkpoints/"


def checkpoint(run: str, tokens: int, attempt: int) -> str:
    """Prefix of one checkpoint: a name that is never used twice."""
    return f"{checkpoints(run)}{tokens:015d}-{attempt:08d}/"


def ledger(run: str, attempt: int) -> str:
    """Where every second of an attempt went."""
    return f"runs/{run}/ledger/{attempt:08d}.jsonl"


def log(run: str) -> str:
    """Prefix of all log chunks."""
    return f"runs/{run}/log/"


def log_chunk(run: str, attempt: int, chunk: int) -> str:
    """A piece of an attempt's log: stores have no appends, so a log is a row of small objects."""
    return f"{log(run)}{attempt:08d}/{chunk:08d}.jsonl"


def heartbeat(run: str) -> str:
    """Who is alive, advisory."""
    return f"runs/{run}/heartbeat.json"


def probe(name: str) -> str:
    """An object that lives for a moment, to see what a store does."""
    return f".probe/{name}"
