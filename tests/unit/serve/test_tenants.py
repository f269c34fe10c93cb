"""API keys: shown once, kept as digests, and known or revoked without a restart; and the quotas beside them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headway.errors import UsageError
from headway.serve.tenants import KeyFile, KeyStore, Quota, Tenants


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    """A file of keys that does not exist yet."""
    return KeyStore(tmp_path / "kept" / "keys.json")


def test_a_key_tells_its_tenant(keys: KeyStore) -> None:
    """Of several, each its own; nobody's key tells nobody."""
    first, second = keys.add("a"), keys.add("b")
    tenants = Tenants(keys)
    assert (tenants.of(first), tenants.of(second)) == ("a", "b")
    assert [tenants.of(wrong) for wrong in ("", "hw-", first[:-1], first + "x", first.upper())] == [None] * 5


def test_a_key_is_kept_nowhere(keys: KeyStore) -> None:
    """Neither it nor a part of it is in the file, which only its owner reads."""
    key = keys.add("a")
    text = keys.path.read_text()
    assert not any(key[start : start + 12] in text for start in range(len(key) - 11))
    assert keys.path.stat().st_mode & 0o077 == 0


def test_a_running_endpoint_follows_the_file(keys: KeyStore) -> None:
    """A new key is known and a revoked one refused, once the file is looked at again."""
    first, clock = keys.add("a"), Clock()
    tenants = Tenants(keys, clock)
    second = keys.add("b")
    assert tenants.of(second) is None
    clock.now = 2.0
    assert tenants.of(second) == "b"
    keys.revoke(next(key.name for key in keys.read() if key.tenant == "a"))
    clock.now = 4.0
    assert tenants.of(first) is None
    assert tenants.of(second) == "b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[]",
        '{"keys": [], "a": 1}',
        '{"keys": [{"tenant": "a"}]}',
        '{"keys": [1]}',
        '{"quotas": {}}',
        '{"keys": [], "quotas": {"a": {"tokens_per_minute": 0}}}',
        '{"keys": [], "quotas": {"a": {"tokens_a_minute": 1}}}',
    ],
)
def test_a_file_that_got_damaged_locks_nobody_out(keys: KeyStore, text: str) -> None:
    """What was known stays known until the file can be read again; a start with such a file is refused."""
    key, clock = keys.add("a"), Clock()
    tenants = Tenants(keys, clock)
    whole = keys.path.read_text()
    keys.path.write_text(text)
    clock.now = 2.0
    assert tenants.of(key) == "a"
    with pytest.raises(UsageError, match="no file of API keys"):
        Tenants(keys)
    keys.path.write_text(whole)
    clock.now = 4.0
    assert tenants.of(key) == "a"


def test_an_emptied_file_locks_all_out(keys: KeyStore) -> None:
    """The last key was revoked."""
    key, clock = keys.add("a"), Clock()
    tenants = Tenants(keys, clock)
    keys.revoke(keys.read()[0].name)
    clock.now = 2.0
    assert tenants.of(key) is None


def test_a_file_that_others_may_read_stays_so(keys: KeyStore) -> None:
    """Whoever serves is to see a revocation, whoever revokes."""
    keys.add("a")
    keys.path.chmod(0o640)
    keys.add("b")
    assert keys.path.stat().st_mode & 0o777 == 0o640


def test_keys_made_at_once_are_all_kept(keys: KeyStore) -> None:
    """No change gets lost, whoever reads and writes meanwhile."""
    with ThreadPoolExecutor(8) as many:
        made = list(many.map(lambda number: keys.add(str(number)), range(40)))
    assert len({*made}) == len(keys.read()) == 40


def test_revoking_what_is_not_there_names_what_is(keys: KeyStore) -> None:
    """By name and tenant."""
    keys.add("team-a")
    with pytest.raises(UsageError, match="team-a"):
        keys.revoke("00000000")


def test_a_running_endpoint_follows_a_limit(keys: KeyStore) -> None:
    """It is in force once the file is looked at again; one that is taken away, too; both look by themselves."""
    keys.add("a")
    clock = Clock()
    tenants = Tenants(keys, clock)
    keys.limit("a", tokens=1000)
    assert tenants.quota("a") is None
    clock.now = 2.0
    assert tenants.quota("a") == Quota(tokens_per_minute=1000)
    assert tenants.quota("b") is None
    keys.limit("a", tokens=0)
    clock.now = 4.0
    assert tenants.quota("a") is None


def test_each_limit_is_set_by_itself(keys: KeyStore) -> None:
    """What is not given stays, 0 takes one away; a tenant without limits has no place among the quotas."""
    key = keys.add("a")
    assert keys.limit("a", requests=5) == Quota(requests_per_minute=5)
    assert keys.limit("a", tokens=7) == Quota(requests_per_minute=5, tokens_per_minute=7)
    assert keys.limit("a", requests=0) == Quota(tokens_per_minute=7)
    assert keys.load().quotas == {"a": Quota(tokens_per_minute=7)}
    assert keys.limit("a", tokens=0) == Quota()
    assert keys.load() == KeyFile(keys=keys.read())
    assert Tenants(keys).of(key) == "a"


def test_a_quota_outlives_the_keys_of_its_tenant(keys: KeyStore) -> None:
    """A key that is replaced has the limits of the one before; keys that come and go change no quota."""
    keys.add("a")
    keys.limit("a", requests=5)
    keys.revoke(keys.read()[0].name)
    assert keys.load() == KeyFile(keys=[], quotas={"a": Quota(requests_per_minute=5)})
    keys.add("a")
    keys.add("b")
    assert keys.load().quotas == {"a": Quota(requests_per_minute=5)}
    keys.limit("b", requests=1)
    assert keys.limit("a", requests=0) == Quota()
    assert keys.load().quotas == {"b": Quota(requests_per_minute=1)}


def test_nobody_is_limited_by_a_slip_of_the_pen(keys: KeyStore) -> None:
    """A limit for whom nothing is kept would limit nobody: it is refused, with the names that there are."""
    keys.add("team-a")
    with pytest.raises(UsageError, match="team-a"):
        keys.limit("team-b", requests=1)
    assert keys.load().quotas == {}
