"""The name of every object in a run store; nobody else puts one together."""


def runs() -> str:
    """Prefix of all runs."""
    return "runs/"


def run(name: str) -> str:
    """Prefix of all that there is of one run."""
    return f"{runs()}{name}/"


def recipe(run: str) -> str:
    """The frozen recipe."""
    return f"runs/{run}/recipe.yaml"


def journal(run: str) -> str:
    """Prefix of the journal."""
    return f"runs/{run}/journal/"


def entry(run: str, sequence: int) -> str:
    """One journal entry, from 1."""
    return journal_entry(journal(run), sequence)


def journal_entry(prefix: str, sequence: int) -> str:
    """One entry of the journal below `prefix`, from 1."""
    return f"{prefix}{sequence:08d}.json"


def packs(run: str) -> str:
    """Prefix of the journal's packs."""
    return f"runs/{run}/packs/"


def pack(run: str, number: int) -> str:
    """A copy of many journal entries in one object, from 0."""
    return f"{packs(run)}{number:08d}.json"


def checkpoints(run: str) -> str:
    """Prefix of all checkpoints, committed or not."""
    return f"runs/{run}/checkpoints/"


def checkpoint(run: str, tokens: int, attempt: int) -> str:
    """Prefix of one checkpoint: a name that is never used twice."""
    return f"{checkpoints(run)}{tokens:015d}-{attempt:08d}/"


def stem(key: str) -> str:
    """The name of an object, without prefix and kind."""
    return key.rpartition("/")[2].partition(".")[0]


def folder(key: str) -> str:
    """The prefix that an object lies in: of a checkpoint's objects, the checkpoint's."""
    return key.rpartition("/")[0] + "/"


def attempt_of(key: str) -> int | None:
    """The attempt that wrote an object of a checkpoint; None if it lies in no checkpoint."""
    attempt = folder(key).rstrip("/").rpartition("-")[2]
    return int(attempt) if attempt.isdigit() else None


def tokens_of(key: str) -> int:
    """The position of the checkpoint that an object lies in [tokens]."""
    return int(folder(key).rstrip("/").rpartition("/")[2].partition("-")[0])


def ledgers(run: str) -> str:
    """Prefix of the ledgers of all attempts."""
    return f"runs/{run}/ledger/"


def ledger(run: str, attempt: int) -> str:
    """Where every second of an attempt went."""
    return f"{ledgers(run)}{attempt:08d}.jsonl"


def log(run: str) -> str:
    """Prefix of all log chunks."""
    return f"runs/{run}/log/"


def log_chunk(run: str, attempt: int, chunk: int) -> str:
    """A piece of an attempt's log: stores have no appends, so a log is a row of small objects."""
    return f"{log(run)}{attempt:08d}/{chunk:08d}.jsonl"


def heartbeat(run: str) -> str:
    """Who is alive, advisory."""
    return f"runs/{run}/heartbeat.json"


def rendezvous(run: str, launch: str) -> str:
    """Where the machines of one launch find each other, while they begin."""
    return f"runs/{run}/meetings/{launch}.json"


def submissions() -> str:
    """Prefix of all that was ever asked of SLURM."""
    return "submissions/"


def submission(name: str) -> str:
    """What was asked of SLURM under a name."""
    return f"{submissions()}{name}.json"


def models() -> str:
    """Prefix of all models."""
    return "models/"


def model_journal(name: str) -> str:
    """Prefix of a model's journal."""
    return f"{models()}{name}/journal/"


def version(name: str, tokens: int, nonce: str) -> str:
    """Prefix of one version of a model: a name that is never used twice."""
    return f"{models()}{name}/{tokens:015d}-{nonce}/"


def version_manifest(prefix: str) -> str:
    """What a version's files are, beside them."""
    return f"{prefix}manifest.json"
