"""Packs make a long journal cheap to read, and nothing that befalls one changes what is read."""

import json
from collections.abc import Callable, Iterator

import pytest
from tests.memory import MemoryStore

from headway.checkpoint.verify import verify
from headway.objectstore import Buffer
from headway.runs import Committed, Damaged, Entry, Holder, Journal, Run, keys, pack
from headway.runs.entries import decode, encode

HOLDER = Holder(host="h", pid=1, started=1, launch="x")
FIRST = keys.pack("run", 0)


class CountingStore(MemoryStore):
    """A store that counts requests, and notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        self.created: list[str] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read, and count."""
        self.requests += 1
        return super().get(key, start, length)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """List, and count: short enough for one page."""
        self.requests += 1
        return super().list(prefix, after)

    def create(self, key: str, data: Buffer) -> None:
        """Write, and note what."""
        self.requests += 1
        super().create(key, data)
        self.created.append(key)


def write(store: MemoryStore, length: int) -> Journal:
    """A journal of so many entries, packed as a saver packs: after each commit."""
    journal = Journal(store, "run")
    journal.claim(lambda: None, holder=HOLDER, recipe="r")
    commit(journal, length - 1)
    return journal


def commit(journal: Journal, number: int) -> None:
    """Commit so many checkpoints that exist in name only."""
    for _ in range(number):
        tokens = len(journal.entries) * 10
        journal.append(Committed, 1, tokens=tokens, manifest=f"m{tokens}", sha256="0", bytes=1)
        journal.pack()


def themselves(store: MemoryStore) -> list[Entry | Damaged]:
    """The entries as they are, without packs."""
    return Journal(store, "run", packed=False).read()


def requests(store: CountingStore, *, packed: bool = True) -> int:
    """What it costs a new reader to read all."""
    before = store.requests
    Journal(store, "run", packed=packed).read()
    return store.requests - before


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of eight, so that a few entries are a long journal."""
    monkeypatch.setattr(pack, "ENTRIES", 8)


def test_a_long_journal_is_read_in_few_requests() -> None:
    """A reader of 100 entries asks for 12 packs, for the few entries after them, and for one that vouches for them."""
    store = CountingStore()
    write(store, 100)
    assert requests(store) <= 2 + 12 + 4 + 1
    assert requests(store, packed=False) == 1 + 100
    assert Journal(store, "run").read() == themselves(store)


def test_requests_grow_with_the_journal_and_no_faster() -> None:
    """An append costs the same however long the journal is, and twice the journal is at most twice the reading."""
    store = CountingStore()
    journal, costs = write(store, 16), []
    for _ in range(8):
        before = store.requests
        commit(journal, 16)
        costs.append(store.requests - before)
    assert len(set(costs)) == 1
    assert costs[0] == 16 * 2 + 2  # a listing and the entry; two packs
    short = requests(store)
    commit(journal, len(journal.entries))
    assert requests(store) <= 2 * short


def test_packs_appear_only_full() -> None:
    """Seven entries are in no pack; the eighth makes one; the fifteenth makes none."""
    store = MemoryStore()
    journal = write(store, 7)
    assert [*store.list(keys.packs("run"))] == []
    commit(journal, 1)
    assert [*store.list(keys.packs("run"))] == [FIRST]
    assert json.loads(store.get(FIRST)) == [store.get(keys.entry("run", n)).decode() for n in range(1, 9)]
    commit(journal, 7)
    assert [*store.list(keys.packs("run"))] == [FIRST]


def test_a_pack_is_never_written_again() -> None:
    """Whoever packs finds the packs of others as they are, and goes on after them; each is created once."""
    store = CountingStore()
    write(store, 20)
    before = dict(store.objects)
    other = Journal(store, "run")
    other.read()
    other.pack()
    assert store.objects == before
    commit(other, 12)
    packs = [key for key in store.created if key.startswith(keys.packs("run"))]
    assert packs == [keys.pack("run", number) for number in range(4)]
    assert {key: store.objects[key] for key in before} == before
    assert not [*Journal(store, "run", packed=False).unlike_packs()]


def forged(data: bytes, index: int) -> bytes:
    """A pack in which one entry says something else, with a checksum of its own."""
    texts = json.loads(data)
    entry = decode(texts[index].encode(), json.loads(texts[index])["seq"])
    texts[index] = encode(entry.model_copy(update={"time": 1.0})).decode()
    return json.dumps(texts).encode()


HARM: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "rubbish": lambda _: b"\xff{rubbish",
    "cut off": lambda data: data[: len(data) // 2],
    "no list": lambda _: b"7",
    "not of texts": lambda _: b"[1, null]",
    "a lone surrogate": lambda _: b'["\\ud800"]',
    "a flipped bit": lambda data: data.replace(b"manifest", b"manifesu", 1),
    "short": lambda data: json.dumps(json.loads(data)[:3]).encode(),
    "long": lambda data: json.dumps([*json.loads(data), "more"]).encode(),
    "in another order": lambda data: json.dumps(json.loads(data)[::-1]).encode(),
    "forged first": lambda data: forged(data, 0),
    "forged in the middle": lambda data: forged(data, 3),
    "forged last": lambda data: forged(data, 7),
}


@pytest.mark.parametrize("length", [8, 11, 20, 24])
@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("last", [False, True])
def test_a_harmed_pack_changes_nothing_that_is_read(harm: str, length: int, *, last: bool) -> None:
    """Whatever a pack says, the entries are those that were written, and appends go on after them."""
    store = MemoryStore()
    write(store, length)
    sound = themselves(store)
    key = keys.pack("run", length // 8 - 1 if last else 0)
    store.objects[key] = HARM[harm](store.objects[key])
    reader = Journal(store, "run")
    assert reader.read() == sound
    commit(reader, 9)
    after = themselves(store)
    assert after[:length] == sound
    assert len(after) == length + 9
    assert not [entry for entry in after if isinstance(entry, Damaged)]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_pack_changes_nothing_that_is_read(number: int) -> None:
    """Packs count as far as they are dense; the entries after a missing one are read themselves."""
    store = CountingStore()
    write(store, 28)
    sound = themselves(store)
    store.delete(keys.pack("run", number))
    assert Journal(store, "run").read() == sound
    assert requests(store) <= 2 + 3 + (28 - 8 * number) + 1


def findings(store: MemoryStore) -> list[str]:
    """What `verify` says of a journal whose checkpoints exist in name only."""
    store.put(keys.recipe("run"), [b"?"])
    return [each.what for each in verify(Run(store, "run")) if not isinstance(each, int) and not each.manifest]


def test_verify_names_a_pack_that_is_no_copy() -> None:
    """A pack that differs is a finding, with its key and what to do; the others are none."""
    store = MemoryStore()
    write(store, 20)
    key = keys.pack("run", 1)
    store.objects[key] = forged(store.objects[key], 2)
    first, _about_the_recipe = findings(store)
    assert first == f"{key}: is not a copy of its 8 journal entries; delete it"


def test_verify_names_a_pack_above_a_missing_one() -> None:
    """A pack that no reader gets to is checked all the same: the missing one may come yet."""
    store = MemoryStore()
    write(store, 28)
    store.delete(keys.pack("run", 0))
    key = keys.pack("run", 2)
    store.objects[key] = forged(store.objects[key], 2)
    first, _about_the_recipe = findings(store)
    assert first == f"{key}: is not a copy of its 8 journal entries; delete it"


def test_no_pack_is_to_be_deleted_that_holds_what_the_journal_has_lost() -> None:
    """Where an entry itself is damaged its pack differs too, and may be the last sound copy: nobody says delete it."""
    store = MemoryStore()
    write(store, 20)
    store.delete(keys.entry("run", 3))
    found = findings(store)
    assert "journal entry 3 is missing" in found
    assert not [what for what in found if "delete it" in what]
