"""A checksum proves that an entry is what its writer wrote, not that its writer may say it."""

import json
import math
from typing import Any

import pytest
from tests.memory import MemoryStore

from headway.errors import DamageError, JournalError
from headway.runs import Committed, Damaged, Ended, Holder, Journal, Pruned, Run, fold, keys
from headway.runs.entries import sha256
from headway.runs.garbage import find_garbage
from headway.runs.hashlog import ENTRY_BYTES, MAX_GAP

HOLDER = Holder(host="h", pid=1, started=1, launch="x")
CLAIM, COMMIT, PRUNE, END = 1, 2, 3, 4
"""Numbers of the entries of the victim."""


@pytest.fixture
def store() -> MemoryStore:
    """A run of one claim, one commit, one pruning and one end."""
    store = MemoryStore()
    journal = Journal(store, "run")
    journal.claim(lambda: None, holder=HOLDER, recipe="r")
    manifest = keys.checkpoint_manifest("run", 10, 1)
    journal.append(Committed, 1, tokens=10, manifest=manifest, sha256="0" * 64, bytes=1)
    journal.append(Pruned, 1, manifests=[manifest])
    journal.append(Ended, 1, outcome="failed", reason="r", tokens=10)
    return store


def forge(store: MemoryStore, seq: int, **changes: Any) -> None:
    """Change fields of an entry, and all digests so that they fit."""
    previous = ""
    for number in range(1, 5):
        key = keys.journal_entry("run", number)
        fields = json.loads(store.objects[key])
        del fields["digest"]
        fields |= {"previous": previous} | (changes if number == seq else {})
        digest = sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())
        store.objects[key] = json.dumps({**fields, "digest": digest}).encode()
        previous = sha256(store.objects[key])


def damaged(store: MemoryStore) -> list[int]:
    """Numbers of the damaged entries."""
    return [entry.seq for entry in Journal(store, "run").read() if isinstance(entry, Damaged)]


FOREIGN = [
    "runs/precious/recipe.yaml",
    "runs/precious/x",
    "models/coder/journal/00000001.json",
    keys.checkpoint_manifest("precious", 10, 1),
    keys.checkpoint_manifest("run", 11, 1),
    keys.checkpoint_manifest("run", 10, 2),
    "runs/run/checkpoints/manifest.json",
    "/etc/passwd",
    "../x",
    "a\0b",
    "",
]
"""Keys that are not of the checkpoint that an entry commits."""


@pytest.mark.parametrize("key", FOREIGN)
def test_a_commit_names_its_own_manifest_alone(store: MemoryStore, key: str) -> None:
    """Another key is damage, so nothing reads, copies or deletes what lies there."""
    forge(store, COMMIT, manifest=key)
    assert damaged(store) == [COMMIT]
    assert fold(Journal(store, "run").read()).commits == []


@pytest.mark.parametrize(
    "key", ["runs/precious/x", keys.checkpoint_manifest("precious", 10, 1), "runs/run/recipe.yaml"]
)
def test_only_checkpoints_of_the_run_are_pruned(store: MemoryStore, key: str) -> None:
    """A pruning of anything else is damage, and nothing is garbage then."""
    forge(store, PRUNE, manifests=[keys.checkpoint_manifest("run", 10, 1), key])
    assert damaged(store) == [PRUNE]
    with pytest.raises(DamageError, match="prunes what is no checkpoint of this run"):
        list(find_garbage(Run(store, "run")))


@pytest.mark.parametrize(
    ("seq", "changes"),
    [
        (CLAIM, {"attempt": 7}),
        (COMMIT, {"attempt": 2}),
        (COMMIT, {"attempt": 0}),
        (COMMIT, {"sha256": "/home/me/thesis"}),
        (COMMIT, {"sha256": "A" * 64}),
        (COMMIT, {"sha256": "0" * 64 + "\n"}),
        (COMMIT, {"tokens": -1}),
        (COMMIT, {"tokens": None}),
        (COMMIT, {"tokens": "10"}),
        (COMMIT, {"tokens": True}),
        (COMMIT, {"tokens": 10**400}),
        (COMMIT, {"bytes": 10**400}),
        (COMMIT, {"bytes": -1}),
        (END, {"time": math.nan}),
        (END, {"time": 1e300}),
        (END, {"time": 1_700_000_000_000}),
        (END, {"reason": "\ud800"}),
        (END, {"reason": None}),
        (END, {"outcome": "won"}),
        (CLAIM, {"holder": {**HOLDER.model_dump(), "pid": 10**30}}),
        (CLAIM, {"holder": {**HOLDER.model_dump(), "job": "--all"}}),
        (CLAIM, {"lost_at": -math.inf}),
        (CLAIM, {"recipe": "x" * 2000}),
        (CLAIM, {"extra": 1}),
    ],
)
def test_a_field_of_another_type_or_beyond_its_bounds_is_damage(
    store: MemoryStore, seq: int, changes: dict[str, Any]
) -> None:
    """It is no error of the reader, and the other entries are read."""
    forge(store, seq, **changes)
    assert damaged(store) == [seq]


@pytest.mark.parametrize("body", [b"[" * 200_000, b"0" * 5000, b"", b"\xff", b" " * (ENTRY_BYTES + 1), b"{}", b"null"])
def test_what_is_no_entry_is_damage(store: MemoryStore, body: bytes) -> None:
    """Whatever its depth, its digits and its length are."""
    store.objects[keys.journal_entry("run", COMMIT)] = body
    assert damaged(store) == [COMMIT]


def test_a_long_reason_is_cut(store: MemoryStore) -> None:
    """A writer's own reason, whatever it holds, never makes its entry damage."""
    journal = Journal(store, "run")
    attempt = journal.claim(lambda: None, holder=HOLDER, recipe="r").seq
    entry = journal.append(Ended, attempt, outcome="failed", reason="no \udcff " + "x" * 10**6, tokens=10)
    assert entry.reason.startswith("no ? xxx")
    assert len(entry.reason) == 10_000
    assert damaged(store) == []


def test_nothing_is_written_that_readers_refuse(store: MemoryStore) -> None:
    """The writer gets an error, and the journal is as it was."""
    journal = Journal(store, "run")
    attempt = journal.claim(lambda: None, holder=HOLDER, recipe="r").seq
    before = dict(store.objects)
    with pytest.raises(JournalError, match="commits a manifest that is not its own; it was not written"):
        journal.append(Committed, attempt, tokens=10, manifest="m", sha256="0" * 64, bytes=1)
    many = [keys.checkpoint_manifest("run", tokens, 1) for tokens in range(10_000)]
    with pytest.raises(JournalError, match="is longer than"):
        journal.append(Pruned, attempt, manifests=many)
    assert store.objects == before


class CountingStore(MemoryStore):
    """Counts the objects that are read."""

    reads = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object."""
        self.reads += 1
        return super().get(key, start, length)


@pytest.mark.parametrize("name", ["20261126.json", "99999999999999.json", "²²².json", "00000002 (copy).json", "x/y"])
@pytest.mark.parametrize("folder", [keys.journal("run"), keys.packs("run")])
def test_a_stray_file_is_no_entry(store: MemoryStore, folder: str, name: str) -> None:
    """A reader reads what it would read without it; a writer goes on after the last entry."""
    counting = CountingStore()
    counting.objects = store.objects
    Journal(counting, "run").read()
    without, counting.reads = counting.reads, 0
    store.objects[folder + name] = b"stray"
    journal = Journal(counting, "run")
    assert len(journal.read()) == 4
    assert counting.reads == without
    assert damaged(store) == []
    assert journal.claim(lambda: None, holder=HOLDER, recipe="r").seq == 5
    assert list(Journal(store, "run", packed=False).check_packs()) == []


def test_nothing_is_garbage_beside_an_entry_that_nothing_leads_to(store: MemoryStore) -> None:
    """It may be what is left of a journal that lost its middle, and name anything."""
    key = keys.journal_entry("run", 5 + MAX_GAP + 1)
    store.objects[key] = store.objects[keys.journal_entry("run", END)]
    with pytest.raises(DamageError, match=f"{key}: no entry leads to it"):
        list(find_garbage(Run(store, "run")))
    store.objects[keys.journal_entry("run", 6)] = store.objects.pop(key)  # after a hole of one
    assert damaged(store) == [5, 6]
