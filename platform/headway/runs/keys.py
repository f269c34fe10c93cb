"""The keys of all objects in a run store. No other module composes or parses one.

Names are checked where a key is made of them, and a key is parsed only by its exact pattern. So no name, and no key
that somebody wrote into a store, leads out of the prefix that it belongs to.
"""

import re
from dataclasses import dataclass

from headway.errors import UsageError

MAX_NAME_LENGTH = 100
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}")
"""Names of runs, models and submissions."""
NAME_RULE = f"use letters, digits, `.`, `_` and `-`; start with a letter or digit; at most {MAX_NAME_LENGTH}"
MAX_TOKENS = 10**15 - 1
"""Largest position that a key has digits for [tokens]."""
MAX_NUMBER = 10**8 - 1
"""Largest number of an entry, and so of an attempt, that a key has digits for."""
MANIFEST = "manifest.json"
"""Name of the manifest in a checkpoint and in a version of a model."""
SHARD = r"[0-9]{5}-of-[0-9]{5}\.safetensors"
CHECKPOINT = re.compile(rf"runs/({NAME.pattern})/checkpoints/([0-9]{{15}})-([0-9]{{8}})/(manifest\.json|{SHARD})")
OF_RUN = re.compile(
    rf"recipe\.yaml|heartbeat\.json|(?:journal|packs)/[0-9]{{8}}\.json|ledger/[0-9]{{8}}\.jsonl"
    rf"|log/[0-9]{{8}}/[0-9]{{8}}\.jsonl|checkpoints/[0-9]{{15}}-[0-9]{{8}}/(?:manifest\.json|{SHARD})"
    rf"|meetings/{NAME.pattern}\.json"
)
"""What follows the prefix of a run in the keys of its objects."""
OF_MODEL = re.compile(rf"{NAME.pattern}/(?:journal/[0-9]{{8}}\.json|[0-9]{{15}}-[0-9a-f]{{16}}/.+)")
"""What follows the prefix of all models in the keys of their objects."""
ENTRY = re.compile(r"([0-9]{8})\.json")


def check_name(name: str, kind: str = "run") -> str:
    """`name`, if it may be the name of a run, or of another `kind` of thing.

    Raises:
        UsageError: it is not.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a name for a {kind}; {NAME_RULE}")
    return name


def runs() -> str:
    """Prefix of all runs."""
    return "runs/"


def run(name: str) -> str:
    """Prefix of one run.

    Raises:
        UsageError: it is not a name of a run.
    """
    return f"runs/{check_name(name)}/"


def recipe(name: str) -> str:
    """Key of the frozen recipe of a run."""
    return f"{run(name)}recipe.yaml"


def journal(name: str) -> str:
    """Prefix of a run's journal."""
    return f"{run(name)}journal/"


def journal_entry(name: str, seq: int) -> str:
    """Key of one entry of a run's journal; `seq` counts from 1."""
    return hashlog_entry(journal(name), seq)


def hashlog_entry(prefix: str, seq: int) -> str:
    """Key of one entry of the hash log below `prefix`; `seq` counts from 1."""
    return f"{prefix}{seq:08d}.json"


def numbered(prefix: str, key: str) -> int | None:
    """The number of a journal entry or pack below `prefix`, by its key; None for any other key."""
    match = ENTRY.fullmatch(key.removeprefix(prefix))
    return int(match[1]) if match else None


def packs(name: str) -> str:
    """Prefix of the packs of a run's journal."""
    return f"{run(name)}packs/"


def pack(name: str, number: int) -> str:
    """Key of one pack of journal entries; `number` counts from 0."""
    return f"{packs(name)}{number:08d}.json"


def checkpoints(name: str) -> str:
    """Prefix of a run's checkpoints, committed or not."""
    return f"{run(name)}checkpoints/"


def checkpoint(name: str, tokens: int, attempt: int) -> str:
    """Prefix of one checkpoint. No two checkpoints share it."""
    return f"{checkpoints(name)}{tokens:015d}-{attempt:08d}/"


def checkpoint_manifest(name: str, tokens: int, attempt: int) -> str:
    """Key of the manifest of a checkpoint."""
    return checkpoint(name, tokens, attempt) + MANIFEST


def shard(prefix: str, rank: int, world_size: int) -> str:
    """Key of the shard that a rank wrote of the checkpoint below `prefix`."""
    return f"{prefix}{rank:05d}-of-{world_size:05d}.safetensors"


@dataclass(frozen=True)
class CheckpointKey:
    """The key of an object of a checkpoint: of its manifest or of a shard."""

    run: str
    tokens: int
    attempt: int
    """Attempt that wrote it."""
    name: str

    @classmethod
    def parse(cls, key: str) -> "CheckpointKey | None":
        """The parts of a key; None if no checkpoint has an object of that key."""
        match = CHECKPOINT.fullmatch(key)
        return cls(match[1], int(match[2]), int(match[3]), match[4]) if match else None

    @property
    def prefix(self) -> str:
        """Prefix of the checkpoint."""
        return checkpoint(self.run, self.tokens, self.attempt)

    @property
    def is_manifest(self) -> bool:
        """Whether it is the key of a manifest."""
        return self.name == MANIFEST


def folder(key: str) -> str:
    """The prefix of a key up to its last `/`."""
    return key.rpartition("/")[0] + "/"


def ledgers(name: str) -> str:
    """Prefix of a run's ledgers."""
    return f"{run(name)}ledger/"


def ledger(name: str, attempt: int) -> str:
    """Key of the ledger of an attempt."""
    return f"{ledgers(name)}{attempt:08d}.jsonl"


def log(name: str) -> str:
    """Prefix of a run's log."""
    return f"{run(name)}log/"


def log_chunk(name: str, attempt: int, chunk: int) -> str:
    """Key of one chunk of an attempt's log. Stores have no appends, so a log is a sequence of objects."""
    return f"{log(name)}{attempt:08d}/{chunk:08d}.jsonl"


def heartbeat(name: str) -> str:
    """Key of a run's heartbeat."""
    return f"{run(name)}heartbeat.json"


def rendezvous(name: str, launch: str) -> str:
    """Key of the object by which the nodes of a launch find each other."""
    return f"{run(name)}meetings/{check_name(launch, 'launch')}.json"


def is_of_run(name: str, key: str) -> bool:
    """Whether a run makes objects of this key."""
    prefix = run(name)
    return key.startswith(prefix) and bool(OF_RUN.fullmatch(key.removeprefix(prefix)))


def submissions() -> str:
    """Prefix of all submissions."""
    return "submissions/"


def submission(name: str) -> str:
    """Key of a submission.

    Raises:
        UsageError: it is not a name of a submission.
    """
    return f"submissions/{check_name(name, 'submission')}.json"


def models() -> str:
    """Prefix of all models."""
    return "models/"


def model(name: str) -> str:
    """Prefix of one model.

    Raises:
        UsageError: it is not a name of a model.
    """
    return f"models/{check_name(name, 'model')}/"


def model_journal(name: str) -> str:
    """Prefix of a model's journal."""
    return f"{model(name)}journal/"


def version(name: str, tokens: int, nonce: str) -> str:
    """Prefix of one version of a model. No two versions share it."""
    return f"{model(name)}{tokens:015d}-{nonce}/"


def version_manifest(prefix: str) -> str:
    """Key of the manifest of a version."""
    return prefix + MANIFEST


def is_ours(key: str) -> bool:
    """Whether Headway makes objects of this key, in any run, model or submission."""
    kind, _, rest = key.partition("/")
    if kind == "runs":
        name = rest.partition("/")[0]
        return bool(NAME.fullmatch(name)) and is_of_run(name, key)
    if kind == "models":
        return bool(OF_MODEL.fullmatch(rest))
    return kind == "submissions" and rest.endswith(".json") and bool(NAME.fullmatch(rest.removesuffix(".json")))


def is_version_manifest(model: str, key: str) -> bool:
    """Whether `key` is that of the manifest of a version of this model."""
    return bool(re.fullmatch(rf"models/{re.escape(model)}/[0-9]{{15}}-[0-9a-f]{{16}}/manifest\.json", key))
