"""Packs make a long journal cheap to read, and a damaged pack never changes what is read."""

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
    """Counts requests and records created keys."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        self.created: list[str] = []

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object."""
        self.requests += 1
        return super().get(key, start, length)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """List keys, one page."""
        self.requests += 1
        return super().list(prefix, after)

    def create(self, key: str, data: Buffer) -> None:
        """Write an object."""
        self.requests += 1
        super().create(key, data)
        self.created.append(key)


def write(store: MemoryStore, length: int) -> Journal:
    """Write a journal of `length` entries, packed after each commit as savers do."""
    journal = Journal(store, "run")
    journal.claim(lambda: None, holder=HOLDER, recipe="r")
    commit(journal, length - 1)
    return journal


def commit(journal: Journal, number: int) -> None:
    """Append `number` commits without checkpoints."""
    for _ in range(number):
        tokens = len(journal.entries) * 10
        manifest = keys.checkpoint_manifest("run", tokens, 1)
        journal.append(Committed, 1, tokens=tokens, manifest=manifest, sha256="0" * 64, bytes=1)
        journal.pack()


def read_unpacked(store: MemoryStore) -> list[Entry | Damaged]:
    """Read the entries without packs."""
    return Journal(store, "run", packed=False).read()


def requests(store: CountingStore, *, packed: bool = True) -> int:
    """Number of requests of a new reader."""
    before = store.requests
    Journal(store, "run", packed=packed).read()
    return store.requests - before


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of eight entries."""
    monkeypatch.setattr(pack, "ENTRIES", 8)


def test_a_long_journal_is_read_in_few_requests() -> None:
    """100 entries take 12 packs, the entries after them, and one more to verify the last pack."""
    store = CountingStore()
    write(store, 100)
    assert requests(store) <= 2 + 12 + 4 + 1
    assert requests(store, packed=False) == 1 + 100
    assert Journal(store, "run").read() == read_unpacked(store)


def test_requests_grow_with_the_journal_and_no_faster() -> None:
    """The cost of an append is constant, and the cost of reading at most linear."""
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
    """Seven entries make no pack, eight make one, fifteen still one."""
    store = MemoryStore()
    journal = write(store, 7)
    assert [*store.list(keys.packs("run"))] == []
    commit(journal, 1)
    assert [*store.list(keys.packs("run"))] == [FIRST]
    assert json.loads(store.get(FIRST)) == [store.get(keys.journal_entry("run", n)).decode() for n in range(1, 9)]
    commit(journal, 7)
    assert [*store.list(keys.packs("run"))] == [FIRST]


def test_a_pack_is_never_written_again() -> None:
    """A writer continues after the packs of others; each pack is created once."""
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
    assert not [*Journal(store, "run", packed=False).check_packs()]


def forged(data: bytes, index: int) -> bytes:
    """A pack with one entry that was changed together with its checksum."""
    texts = json.loads(data)
    entry = decode(texts[index].encode(), json.loads(texts[index])["seq"])
    texts[index] = encode(entry.model_copy(update={"time": 1.0})).decode()
    return json.dumps(texts).encode()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
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
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("last", [False, True])
def test_a_damaged_pack_does_not_change_what_is_read(damage: str, length: int, *, last: bool) -> None:
    """Readers return the entries that were written, and appends continue after them."""
    store = MemoryStore()
    write(store, length)
    sound = read_unpacked(store)
    key = keys.pack("run", length // 8 - 1 if last else 0)
    store.objects[key] = DAMAGES[damage](store.objects[key])
    reader = Journal(store, "run")
    assert reader.read() == sound
    commit(reader, 9)
    after = read_unpacked(store)
    assert after[:length] == sound
    assert len(after) == length + 9
    assert not [entry for entry in after if isinstance(entry, Damaged)]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_pack_does_not_change_what_is_read(number: int) -> None:
    """Entries after a missing pack are read one by one."""
    store = CountingStore()
    write(store, 28)
    sound = read_unpacked(store)
    store.delete(keys.pack("run", number))
    assert Journal(store, "run").read() == sound
    assert requests(store) <= 2 + 3 + (28 - 8 * number) + 1


def findings(store: MemoryStore) -> list[str]:
    """Findings of `verify` about a journal without checkpoints."""
    store.put(keys.recipe("run"), [b"?"])
    return [each.problem for each in verify(Run(store, "run")) if not isinstance(each, int) and not each.manifest]


def test_verify_names_a_pack_that_is_no_copy() -> None:
    """A pack that differs from its entries is a finding, with its key and what to do."""
    store = MemoryStore()
    write(store, 20)
    key = keys.pack("run", 1)
    store.objects[key] = forged(store.objects[key], 2)
    first, _about_the_recipe = findings(store)
    assert first == f"{key}: is not a copy of its 8 journal entries; delete it"


def test_verify_names_a_pack_above_a_missing_one() -> None:
    """A pack that no reader reaches is checked too: the missing one may still be written."""
    store = MemoryStore()
    write(store, 28)
    store.delete(keys.pack("run", 0))
    key = keys.pack("run", 2)
    store.objects[key] = forged(store.objects[key], 2)
    first, _about_the_recipe = findings(store)
    assert first == f"{key}: is not a copy of its 8 journal entries; delete it"


def test_verify_keeps_a_pack_of_a_lost_entry() -> None:
    """A pack may hold the last sound copy of a damaged entry, so `verify` does not advise to delete it."""
    store = MemoryStore()
    write(store, 20)
    store.delete(keys.journal_entry("run", 3))
    found = findings(store)
    assert "journal entry 3 is missing" in found
    assert not [what for what in found if "delete it" in what]
