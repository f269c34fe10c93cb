"""Names are checked where a key is made of them, and only exact keys are parsed."""

from collections.abc import Callable

import pytest

from headway.errors import UsageError
from headway.runs import keys
from headway.runs.keys import CheckpointKey

NAMES = ["", ".", "..", "a/b", "e/checkpoints", "/x", "-x", ".x", "a b", "a\n", "a\0", "ä", "\udc80", "x" * 101]
"""What is no name of a run."""
MAKERS: list[Callable[[str], str]] = [
    keys.run,
    keys.recipe,
    keys.journal,
    keys.packs,
    keys.checkpoints,
    keys.ledgers,
    keys.log,
    keys.heartbeat,
    keys.submission,
    lambda name: keys.journal_entry(name, 1),
    lambda name: keys.checkpoint_manifest(name, 1, 1),
    lambda name: keys.rendezvous("run", name),
]
"""Every way to make a key of a name."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", range(len(MAKERS)))
def test_no_key_is_made_of_what_is_no_name(make: int, name: str) -> None:
    """So no name leads to another run, or out of the store."""
    with pytest.raises(UsageError, match="is not a name for a"):
        MAKERS[make](name)


def test_a_checkpoint_key_is_parsed_to_what_it_was_made_of() -> None:
    """A manifest and a shard have one form each."""
    manifest = keys.checkpoint_manifest("r.lr-3e-4", 12_288, 8)
    assert CheckpointKey.parse(manifest) == CheckpointKey("r.lr-3e-4", 12_288, 8, "manifest.json")
    shard = CheckpointKey.parse(keys.shard(keys.checkpoint("run", 0, 1), 3, 16))
    assert shard
    assert (shard.tokens, shard.attempt, shard.is_manifest) == (0, 1, False)
    assert shard.prefix == keys.checkpoint("run", 0, 1)


@pytest.mark.parametrize(
    "key",
    [
        "runs/run/checkpoints/2026-11-01/x",
        "runs/run/checkpoints/2026-11-01/manifest.json",
        "runs/run/checkpoints/eval-1/manifest.json",
        "runs/run/checkpoints/000000000000010-00000001/notes.txt",
        "runs/run/checkpoints/000000000000010-00000001/",
        "runs/run/checkpoints/000000000000010-00000001",
        "runs/run/checkpoints/000000000000010-00000001/a/manifest.json",
        "runs/run/checkpoints/000000000000010-00000001/manifest.json\n",
        "runs/run/checkpoints/000000000000010-00000001 (copy)/manifest.json",
        "runs/run/checkpoints/00000000000001²-00000001/manifest.json",
        "runs/run/checkpoints/٠٠٠٠٠٠٠٠٠٠٠٠٠٠١-٠٠٠٠٠٠٠١/manifest.json",
        "runs/a/b/checkpoints/000000000000010-00000001/manifest.json",
        "runs/../checkpoints/000000000000010-00000001/manifest.json",
        "/runs/run/checkpoints/000000000000010-00000001/manifest.json",
    ],
)
def test_no_other_key_is_of_a_checkpoint(key: str) -> None:
    """Dates, copies, notes and digits of other scripts are not."""
    assert CheckpointKey.parse(key) is None
    assert not keys.is_of_run("run", key)
    assert not keys.is_ours(key)


@pytest.mark.parametrize(
    "name",
    ["²²².json", "99999999999999.json", "1.json", "00000001.json.bak", "x00000001.json", "00000001.json/x", "notes"],
)
def test_only_eight_digits_number_an_entry(name: str) -> None:
    """Other names are not parsed as numbers."""
    assert keys.numbered("runs/run/journal/", f"runs/run/journal/{name}") is None
    assert keys.numbered("runs/run/journal/", "runs/run/journal/00000012.json") == 12


def test_what_headway_writes_is_told_from_what_others_do() -> None:
    """The key of every kind of object is known, in runs, models and submissions."""
    for key in (
        keys.recipe("run"),
        keys.heartbeat("run"),
        keys.journal_entry("run", 1),
        keys.pack("run", 0),
        keys.checkpoint_manifest("run", 1, 1),
        keys.shard(keys.checkpoint("run", 1, 1), 0, 2),
        keys.ledger("run", 1),
        keys.log_chunk("run", 1, 0),
        keys.rendezvous("run", "abc"),
        keys.submission("run"),
        "models/coder/journal/00000001.json",
        keys.version("coder", 12, "0123456789abcdef") + "model.safetensors",
    ):
        assert keys.is_ours(key)
    for key in ("runs/run/.DS_Store", "runs/run/notes.md", "models/coder (copy)/x", "submissions/x.txt", "backup/x"):
        assert not keys.is_ours(key)
