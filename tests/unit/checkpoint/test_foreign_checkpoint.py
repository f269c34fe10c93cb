"""A manifest with the right digest reads, copies and deletes nothing but the objects of its own checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.memory import MemoryStore
from tests.unit.checkpoint.conftest import NewRun, SavingRun

from headway.checkpoint.reader import StoredCheckpoint
from headway.checkpoint.restore import restore
from headway.checkpoint.retention import Retention
from headway.checkpoint.run_copy import _copy_ledgers_and_logs, _copy_objects
from headway.checkpoint.verify import Finding, verify
from headway.errors import DamageError
from headway.objectstore.folder import FolderStore
from headway.runs import Holder, Journal, Run, keys
from headway.runs.entries import encode, sha256
from headway.runs.garbage import find_garbage

Change = Callable[[dict[str, Any]], None]
PRECIOUS = "runs/precious/recipe.yaml"


@pytest.fixture
def saving(new_run: NewRun) -> SavingRun:
    """A run with a checkpoint, whose recipe is missing."""
    saving = new_run()
    saving.save(64)
    return saving


def forge(saving: SavingRun, change: Change) -> StoredCheckpoint:
    """Change the manifest of the newest checkpoint, and its entry so that the digests fit."""
    commit = saving.run.history().commits[-1]
    manifest = json.loads(saving.run.store.get(commit.manifest))
    change(manifest)
    data = json.dumps(manifest).encode()
    saving.run.store.put(commit.manifest, [data])
    forged = commit.model_copy(update={"sha256": sha256(data)})
    saving.run.store.put(keys.journal_entry("run", commit.seq), [encode(forged)])
    return StoredCheckpoint(saving.run.store, Run(saving.run.store, "run").history().commits[-1])


def shard_key(key: str) -> Change:
    """Another key of the shard."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["shards"][0]["key"] = key

    return change


def field(name: str, value: Any) -> Change:
    """Another value of a field of the manifest."""

    def change(manifest: dict[str, Any]) -> None:
        manifest[name] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        shard_key(PRECIOUS),
        shard_key("models/coder/journal/00000001.json"),
        shard_key(keys.checkpoint("run", 64, 1) + "../x.safetensors"),
        shard_key(keys.checkpoint("run", 64, 1) + "00001-of-00001.safetensors"),
        shard_key(keys.checkpoint("run", 128, 1) + "00000-of-00001.safetensors"),
        shard_key(keys.checkpoint("precious", 64, 1) + "00000-of-00001.safetensors"),
        shard_key("/etc/passwd"),
        shard_key("a\0b"),
        field("run", "precious"),
        field("run", "../precious"),
        field("tokens", 128),
        field("attempt", 2),
    ],
)
def test_a_manifest_names_its_own_shards_alone(saving: SavingRun, tmp_path: Path, change: Change) -> None:
    """Anything else is damage to every reader, and is copied by none."""
    checkpoint = forge(saving, change)
    [damage] = checkpoint.damage()
    assert isinstance(damage, DamageError)
    assert str(damage).startswith(checkpoint.commit.manifest)
    assert not checkpoint.is_complete()
    target = FolderStore(tmp_path / "target")
    target.put(PRECIOUS, [b"precious"])
    with pytest.raises(DamageError):
        list(_copy_objects(checkpoint, target))
    assert list(target.sizes("")) == [(PRECIOUS, 8)]


def test_no_memory_is_taken_for_a_shard_that_is_not_there(saving: SavingRun) -> None:
    """A tensor of a petabyte is refused by the length of its shard, before it is made."""

    def change(manifest: dict[str, Any]) -> None:
        [tensor] = manifest["tensors"].values()
        rows, [chunk] = 2**28, tensor["chunks"]
        blocks = ["0"] * (rows * 16 // (4 << 20))
        tensor["shape"] = [rows, 4]
        chunk |= {"size": [rows, 4], "length": rows * 16, "checksums": blocks}
        manifest["shards"][0]["bytes"] = manifest["shards"][0]["header_bytes"] + rows * 16

    checkpoint = forge(saving, change)
    with pytest.raises(DamageError, match="bytes long"):
        checkpoint.read_tensor("model.w")


def test_a_tensor_of_another_type_is_not_restored(saving: SavingRun) -> None:
    """Its bytes do not fit into the one that waits for them."""
    checkpoint = forge(saving, lambda manifest: manifest["tensors"]["model.w"].update(dtype="int32"))
    with pytest.raises(DamageError, match=r"has no float32 tensor model\.w"):
        restore(checkpoint, {"model.w": torch.zeros(4, 4)})


def test_what_others_keep_beside_a_checkpoint_stays(new_run: NewRun, store: FolderStore) -> None:
    """Retention and garbage collection delete what the run wrote; `verify` names the rest."""
    saving = new_run(keep=1)
    folder = keys.folder(saving.save(64).manifest)
    mine = [f"{folder}notes.md", f"{folder}eval-1/scores.json", f"{keys.checkpoints('run')}2026-11-01/x.safetensors"]
    for key in mine:
        store.put(key, [b"mine"])
    saving.save(128)
    Retention(1).prune(Run(store, "run"), saving.attempt)
    Run(store, "run").journal.claim(lambda: None, holder=Holder(host="h", pid=1, started=1, launch="y"), recipe="r")
    assert list(find_garbage(Run(store, "run"))) == []
    assert [*store.list(folder)] == sorted(mine[:2])
    findings = {each.problem for each in verify(Run(store, "run")) if isinstance(each, Finding)}
    assert {f"{key}: is no object of a run" for key in mine} <= findings


def test_an_object_that_nobody_reads_is_a_finding(saving: SavingRun, store: FolderStore) -> None:
    """What is too long is passed over by those who look, so `verify` names it."""
    long = [keys.heartbeat("run"), keys.log_chunk("run", 1, 0), keys.ledger("run", 1), keys.pack("run", 0)]
    for key in long:
        path = store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(50_000_000_000)
    findings = [each.problem for each in verify(saving.run) if isinstance(each, Finding)]
    assert {key for key in long if any(line.startswith(f"{key}: is 50,000,000,000 bytes") for line in findings)} == {
        *long
    }


def test_many_checkpoints_are_pruned_in_short_entries(monkeypatch: pytest.MonkeyPatch, new_run: NewRun) -> None:
    """However many there are, no entry is longer than readers take."""
    monkeypatch.setattr("headway.checkpoint.retention.BATCH", 2)
    saving = new_run(keep=10)
    for tokens in range(64, 64 * 7, 64):
        saving.save(tokens)
    Retention(1).prune(saving.run, saving.attempt)
    journal = Journal(saving.run.store, "run")
    assert [len(entry.manifests) for entry in journal.read() if entry.kind == "pruned"] == [2, 2, 1]  # type: ignore[union-attr]
    assert [commit.tokens for commit in saving.run.history().commits] == [64 * 6]


def test_a_copy_takes_only_what_the_run_wrote(saving: SavingRun) -> None:
    """Files of others among the logs and ledgers stay where they are."""
    for key in (keys.ledger("run", 1), keys.log_chunk("run", 1, 0)):
        saving.run.store.put(key, [b"{}"])
    for key in ("ledger/notes.txt", "log/00000001/secret", "log/.DS_Store", "ledger/00000001.jsonl.bak"):
        saving.run.store.put(keys.run("run") + key, [b"mine"])
    target = MemoryStore()
    _copy_ledgers_and_logs(saving.run, target)
    assert sorted(target.objects) == [keys.ledger("run", 1), keys.log_chunk("run", 1, 0)]
