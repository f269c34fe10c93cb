"""The keys of all objects in a run store. No other module composes one."""

import re


def runs() -> str:
    """Prefix of all runs."""
    return "runs/"


def run(name: str) -> str:
    """Prefix of one run."""
    return f"{runs()}{name}/"


def recipe(run: str) -> str:
    """Key of the frozen recipe."""
    return f"runs/{run}/recipe.yaml"


def journal(run: str) -> str:
    """Prefix of a run's journal."""
    return f"runs/{run}/journal/"


def journal_entry(run: str, seq: int) -> str:
    """Key of one entry of a run's journal; `seq` counts from 1."""
    return hashlog_entry(journal(run), seq)


def hashlog_entry(prefix: str, seq: int) -> str:
    """Key of one entry of the hash log below `prefix`; `seq` counts from 1."""
    return f"{prefix}{seq:08d}.json"


def packs(run: str) -> str:
    """Prefix of the packs of a run's journal."""
    return f"runs/{run}/packs/"


def pack(run: str, number: int) -> str:
    """Key of one pack of journal entries; `number` counts from 0."""
    return f"{packs(run)}{number:08d}.json"


def checkpoints(run: str) -> str:
    """Prefix of a run's checkpoints, committed or not."""
    return f"runs/{run}/checkpoints/"


def checkpoint(run: str, tokens: int, attempt: int) -> str:
    """Prefix of one checkpoint. No two checkpoints share it."""
    return f"{checkpoints(run)}{tokens:015d}-{attempt:08d}/"


def stem(key: str) -> str:
    """The last part of a key, without its extension."""
    return key.rpartition("/")[2].partition(".")[0]


def folder(key: str) -> str:
    """The prefix of a key up to its last `/`. For an object of a checkpoint: the checkpoint's prefix."""
    return key.rpartition("/")[0] + "/"


def attempt_of(key: str) -> int | None:
    """The attempt that wrote an object of a checkpoint; None for any other object."""
    attempt = folder(key).rstrip("/").rpartition("-")[2]
    return int(attempt) if attempt.isdigit() else None


def tokens_of(key: str) -> int:
    """The position of the checkpoint that an object belongs to [tokens]."""
    return int(folder(key).rstrip("/").rpartition("/")[2].partition("-")[0])


def ledgers(run: str) -> str:
    """Prefix of a run's ledgers."""
    return f"runs/{run}/ledger/"


def ledger(run: str, attempt: int) -> str:
    """Key of the ledger of an attempt."""
    return f"{ledgers(run)}{attempt:08d}.jsonl"


def log(run: str) -> str:
    """Prefix of a run's log."""
    return f"runs/{run}/log/"


def log_chunk(run: str, attempt: int, chunk: int) -> str:
    """Key of one chunk of an attempt's log. Stores have no appends, so a log is a sequence of objects."""
    return f"{log(run)}{attempt:08d}/{chunk:08d}.jsonl"


def heartbeat(run: str) -> str:
    """Key of a run's heartbeat."""
    return f"runs/{run}/heartbeat.json"


def rendezvous(run: str, launch: str) -> str:
    """Key of the object by which the nodes of a launch find each other."""
    return f"runs/{run}/meetings/{launch}.json"


def submissions() -> str:
    """Prefix of all submissions."""
    return "submissions/"


def submission(name: str) -> str:
    """Key of a submission."""
    return f"{submissions()}{name}.json"


def models() -> str:
    """Prefix of all models."""
    return "models/"


def model_journal(name: str) -> str:
    """Prefix of a model's journal."""
    return f"{models()}{name}/journal/"


def version(name: str, tokens: int, nonce: str) -> str:
    """Prefix of one version of a model. No two versions share it."""
    return f"{models()}{name}/{tokens:015d}-{nonce}/"


def version_manifest(prefix: str) -> str:
    """Key of the manifest of a version."""
    return f"{prefix}manifest.json"


def is_version_manifest(model: str, key: str) -> bool:
    """Whether `key` is that of the manifest of a version of this model."""
    return bool(re.fullmatch(rf"models/{re.escape(model)}/[0-9]{{15}}-[0-9a-f]{{16}}/manifest\.json", key))
