"""The journal orders writers, fences old ones, and detects every change of its entries."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.memory import MemoryStore

from headway.errors import FencedError
from headway.objectstore.folder import FolderStore
from headway.objectstore.protocol import Buffer
from headway.recipe import parse
from headway.runs import (
    Claimed,
    Committed,
    Damaged,
    Decided,
    Ended,
    Holder,
    Journal,
    Pruned,
    Run,
    fold,
    keys,
    read_heartbeat,
)

TRAIN = "train: {tokens: 2048, batch_tokens: 2048, micro_batch_tokens: 2048}\n"
HOLDER = Holder(host="h", pid=1, started=1, launch="x")


def claim(journal: Journal) -> int:
    """Claim the run unconditionally; returns the attempt's number."""
    return journal.claim(lambda: None, holder=HOLDER, recipe="r").seq


def commit(journal: Journal, attempt: int, tokens: int) -> Committed:
    """Commit a checkpoint that exists in name only."""
    manifest = keys.checkpoint_manifest(journal.run, tokens, attempt)
    return journal.append(Committed, attempt, tokens=tokens, manifest=manifest, sha256="0" * 64, bytes=1)


def test_entries_are_numbered_densely_from_one(tmp_path: Path) -> None:
    """The claim is entry 1 and its number is the attempt's; the next entry is 2."""
    journal = Journal(FolderStore(tmp_path), "run")
    assert claim(journal) == 1
    assert commit(journal, 1, 10).seq == 2
    assert [key.rpartition("/")[2] for key in journal.store.list("runs/")] == ["00000001.json", "00000002.json"]


def test_an_older_attempt_cannot_write_after_a_newer_claim(tmp_path: Path) -> None:
    """A zombie that has not read the newer claim is fenced all the same, and writes nothing."""
    store = FolderStore(tmp_path)
    old, new = Journal(store, "run"), Journal(store, "run")
    first = claim(old)
    second = claim(new)
    with pytest.raises(FencedError, match=f"attempt {first} is fenced: attempt {second} was claimed by process 1 on h"):
        commit(old, first, 10)
    assert len(Journal(store, "run").read()) == 2


def test_of_two_claims_at_once_the_second_sees_the_first(tmp_path: Path) -> None:
    """A claim that loses the race checks again."""
    store = FolderStore(tmp_path)
    mine, other = Journal(store, "run"), Journal(store, "run")
    seen: list[int] = []

    def check() -> None:
        seen.append(len(mine.entries))
        if len(seen) == 1:
            claim(other)

    assert mine.claim(check, holder=HOLDER, recipe="r").seq == 2
    assert seen == [0, 1]


class LostResponseStore(FolderStore):
    """A store whose create succeeds, loses the response, and is retried into a conflict."""

    def create(self, key: str, data: Buffer) -> None:
        """Create twice, so that the second finds the first."""
        super().create(key, data)
        super().create(key, data)


def test_a_fenced_process_cannot_claim_after_a_roll_back(tmp_path: Path) -> None:
    """After a roll-back a process claims again, unless another process has claimed the run."""
    store = FolderStore(tmp_path)
    mine, other = Run(store, "run"), Run(store, "run")
    recipe = parse("name: x\nmodel: {layers: 1, width: 2, heads: 1, kv_heads: 1, ffn_width: 1}\n" + TRAIN)
    first = mine.claim(HOLDER, recipe, "d").seq
    assert mine.claim(HOLDER, recipe, "d", follows=first).seq == 2
    other.claim(HOLDER, recipe, "d", take_over=True)
    with pytest.raises(FencedError, match="attempt 2 is fenced: attempt 3"):
        mine.claim(HOLDER, recipe, "d", follows=2)


def test_a_damaged_heartbeat_is_no_heartbeat(tmp_path: Path) -> None:
    """An unreadable heartbeat counts as none."""
    store = FolderStore(tmp_path)
    store.put("runs/run/heartbeat.json", [b"{rubb"])
    assert read_heartbeat(store, "run") is None


def test_a_lost_response_is_recognised(tmp_path: Path) -> None:
    """The writer recognises its own entry by its nonce and does not append it twice."""
    journal = Journal(LostResponseStore(tmp_path), "run")
    assert claim(journal) == 1
    assert len(journal.read()) == 1


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_an_edited_entry_is_named(tmp_path: Path, victim: int) -> None:
    """Changing a field of any entry, without its checksum, damages exactly that entry."""
    journal = Journal(FolderStore(tmp_path), "run")
    claim(journal), commit(journal, 1, 10), commit(journal, 1, 20)
    path = tmp_path / f"runs/run/journal/{victim:08d}.json"
    path.write_text(path.read_text().replace('"time": ', '"time": 1'))
    read = Journal(FolderStore(tmp_path), "run").read()
    assert [entry.seq for entry in read if isinstance(entry, Damaged)] == [victim]


def test_an_entry_rewritten_with_its_checksum_is_named(tmp_path: Path) -> None:
    """The next entry holds the hash of the original."""
    from headway.runs.entries import decode, encode

    journal = Journal(FolderStore(tmp_path), "run")
    claim(journal), commit(journal, 1, 10), commit(journal, 1, 20)
    path = tmp_path / "runs/run/journal/00000002.json"
    path.write_bytes(encode(decode(path.read_bytes(), 2).model_copy(update={"tokens": 99})))
    read = Journal(FolderStore(tmp_path), "run").read()
    assert [entry.seq for entry in read if isinstance(entry, Damaged)] == [2]
    assert [c.tokens for c in fold(read).commits] == [20]


def test_a_changed_pack_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a changed last entry, whose hash a new writer would take over, is not used."""
    monkeypatch.setattr("headway.runs.pack.ENTRIES", 4)
    store = MemoryStore()
    journal = Journal(store, "run")
    claim(journal), commit(journal, 1, 10), commit(journal, 1, 20), commit(journal, 1, 30)
    journal.pack()
    key = "runs/run/packs/00000000.json"
    first, second, third, fourth = json.loads(store.objects[key])
    store.objects[key] = json.dumps([first, second, third, fourth.replace(": ", ":  ", 1)], indent=0).encode()
    claim(Journal(store, "run"))
    assert fold(Journal(store, "run", packed=False).read()).tokens == 30


def test_packs_of_newer_entries_are_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison reads the entries that came after its first read."""
    monkeypatch.setattr("headway.runs.pack.ENTRIES", 4)
    store = MemoryStore()
    writer, reader = Journal(store, "run"), Journal(store, "run", packed=False)
    claim(writer), commit(writer, 1, 10)
    reader.read()
    commit(writer, 1, 20), commit(writer, 1, 30)
    writer.pack()
    assert list(reader.check_packs()) == []


@given(st.data())
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    """Whatever bit of whatever entry is flipped, that entry and no other is reported."""
    store = MemoryStore()
    journal = Journal(store, "run")
    claim(journal), commit(journal, 1, 10), commit(journal, 1, 20)
    key = data.draw(st.sampled_from(sorted(store.objects)))
    bit = int(data.draw(st.floats(0, 1, exclude_max=True)) * len(store.objects[key]) * 8)
    flipped = bytearray(store.objects[key])
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        same = json.loads(flipped) == json.loads(store.objects[key])
    except ValueError:
        same = False
    store.objects[key] = bytes(flipped)
    read = Journal(store, "run").read()
    seq = int(key[-13:-5])
    last = seq == len(read)
    damaged = [entry.seq for entry in read if isinstance(entry, Damaged)]
    assert damaged == ([] if same and last else [seq])  # white space in the last entry changes no field


def test_a_missing_entry_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    """A hole in the journal is damage; later entries still count."""
    journal = Journal(FolderStore(tmp_path), "run")
    claim(journal), commit(journal, 1, 10), commit(journal, 1, 20)
    (tmp_path / "runs/run/journal/00000002.json").unlink()
    read = Journal(FolderStore(tmp_path), "run").read()
    assert [entry.reason for entry in read if isinstance(entry, Damaged)] == ["journal entry 2 is missing"]
    assert fold(read).tokens == 20


def test_an_unreadable_claim_fences_like_a_claim(tmp_path: Path) -> None:
    """A damaged entry may have been a newer claim, so an older attempt does not write past it."""
    store = FolderStore(tmp_path)
    journal = Journal(store, "run")
    first = claim(journal)
    store.create("runs/run/journal/00000002.json", b"rubbish")
    with pytest.raises(FencedError, match="claimed by an unreadable entry"):
        commit(journal, first, 10)
    assert claim(journal) == 3


def test_history_tells_which_checkpoints_count(tmp_path: Path) -> None:
    """Pruned and rolled back checkpoints do not count."""
    journal = Journal(FolderStore(tmp_path), "run")
    claim(journal)
    first, _, _ = commit(journal, 1, 10), commit(journal, 1, 20), commit(journal, 1, 30)
    journal.append(Pruned, 1, manifests=[first.manifest])
    journal.append(Decided, 1, action="rollback", reason="spike", skip_from=25, skip_to=35, restored=20)
    journal.append(Ended, 1, outcome="preempted", reason="asked", tokens=20)
    claim(journal)
    history = fold(journal.read())
    assert [c.tokens for c in history.commits] == [20]
    assert [a.outcome for a in history.attempts] == ["preempted", "open"]
    assert history.skip_decision(30)
    assert not history.skip_decision(35)
    assert not history.done


def test_claims_are_entries_with_their_own_number(tmp_path: Path) -> None:
    """Each claim's attempt is its sequence number, so attempt numbers only grow."""
    journal = Journal(FolderStore(tmp_path), "run")
    numbers = [claim(journal) for _ in range(3)]
    assert numbers == [e.attempt for e in journal.read() if isinstance(e, Claimed)] == [1, 2, 3]


def test_an_attempt_that_has_ended_writes_no_more(tmp_path: Path) -> None:
    """Appends of an attempt after its end fail in every process; the next attempt's succeed."""
    store = FolderStore(tmp_path)
    mine, other = Journal(store, "run"), Journal(store, "run")
    first = claim(mine)
    commit(mine, first, 10)
    other.append(Ended, first, outcome="failed", reason="its ranks left", tokens=10)
    with pytest.raises(FencedError, match="attempt 1 has ended already; nothing was written"):
        commit(mine, first, 20)
    with pytest.raises(FencedError, match="attempt 1 has ended already"):
        mine.append(Ended, first, outcome="preempted", reason="asked", tokens=10)
    assert len(mine.read()) == 3
    second = claim(other)
    assert commit(other, second, 20).seq == 5
    assert fold(mine.read()).attempts[0].outcome == "failed"
