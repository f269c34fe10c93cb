"""API keys and quotas: what the file stores, and how a running service follows it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headway.errors import UsageError
from headway.serve.tenants.key_file import KeyFile, KeyStore, Quota
from headway.serve.tenants.lookup import Tenants


class Clock:
    """A clock that the test sets [s]."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time that was set."""
        return self.now


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    """A key store whose file does not exist yet."""
    return KeyStore(tmp_path / "folder" / "keys.json")


def test_a_key_identifies_its_tenant(keys: KeyStore) -> None:
    """Each tenant has its own key; a wrong key identifies no tenant."""
    first, second = keys.add("a"), keys.add("b")
    tenants = Tenants(keys)
    assert (tenants.tenant_of(first), tenants.tenant_of(second)) == ("a", "b")
    assert [tenants.tenant_of(wrong) for wrong in ("", "hw-", first[:-1], first + "x", first.upper())] == [None] * 5


def test_the_file_does_not_hold_the_key(keys: KeyStore) -> None:
    """It holds no part of it either, and only its owner can read the file."""
    key = keys.add("a")
    text = keys.path.read_text()
    assert not any(key[start : start + 12] in text for start in range(len(key) - 11))
    assert keys.path.stat().st_mode & 0o077 == 0


def test_a_running_service_follows_the_file(keys: KeyStore) -> None:
    """New keys become valid and revoked ones invalid at the next check."""
    first, clock = keys.add("a"), Clock()
    tenants = Tenants(keys, clock)
    second = keys.add("b")
    assert tenants.tenant_of(second) is None
    clock.now = 2.0
    assert tenants.tenant_of(second) == "b"
    keys.revoke(next(key.key_id for key in keys.load().keys if key.tenant == "a"))
    clock.now = 4.0
    assert tenants.tenant_of(first) is None
    assert tenants.tenant_of(second) == "b"


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
def test_a_damaged_file_keeps_the_previous_keys(keys: KeyStore, text: str) -> None:
    """A running service keeps them until the file can be read again; a new one refuses to start."""
    key, clock = keys.add("a"), Clock()
    tenants = Tenants(keys, clock)
    whole = keys.path.read_text()
    keys.path.write_text(text)
    clock.now = 2.0
    assert tenants.tenant_of(key) == "a"
    with pytest.raises(UsageError, match="not a file of API keys"):
        Tenants(keys)
    keys.path.write_text(whole)
    clock.now = 4.0
    assert tenants.tenant_of(key) == "a"


def test_revoking_the_last_key_locks_all_tenants_out(keys: KeyStore) -> None:
    """The tenant of that key is unknown from then on."""
    key, clock = keys.add("a"), Clock()
    tenants = Tenants(keys, clock)
    keys.revoke(keys.load().keys[0].key_id)
    clock.now = 2.0
    assert tenants.tenant_of(key) is None


def test_a_change_keeps_the_mode_of_the_file(keys: KeyStore) -> None:
    """The service can still read it, whoever changed it."""
    keys.add("a")
    keys.path.chmod(0o640)
    keys.add("b")
    assert keys.path.stat().st_mode & 0o777 == 0o640


def test_concurrent_changes_are_all_kept(keys: KeyStore) -> None:
    """No update is lost when many threads add keys."""
    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(lambda number: keys.add(str(number)), range(40)))
    assert len({*created}) == len(keys.load().keys) == 40


def test_revoking_an_unknown_key_lists_the_existing_ones(keys: KeyStore) -> None:
    """The message names ids and tenants."""
    keys.add("team-a")
    with pytest.raises(UsageError, match="team-a"):
        keys.revoke("00000000")


def test_a_running_service_follows_quotas(keys: KeyStore) -> None:
    """A new quota applies, and a removed one no longer does, from the next check."""
    keys.add("a")
    clock = Clock()
    tenants = Tenants(keys, clock)
    keys.limit("a", tokens=1000)
    assert tenants.quota_of("a") is None
    clock.now = 2.0
    assert tenants.quota_of("a") == Quota(tokens_per_minute=1000)
    assert tenants.quota_of("b") is None
    keys.limit("a", tokens=0)
    clock.now = 4.0
    assert tenants.quota_of("a") is None


def test_each_limit_is_set_independently(keys: KeyStore) -> None:
    """None keeps a limit, 0 removes it; a tenant without limits has no quota in the file."""
    key = keys.add("a")
    assert keys.limit("a", requests=5) == Quota(requests_per_minute=5)
    assert keys.limit("a", tokens=7) == Quota(requests_per_minute=5, tokens_per_minute=7)
    assert keys.limit("a", requests=0) == Quota(tokens_per_minute=7)
    assert keys.load().quotas == {"a": Quota(tokens_per_minute=7)}
    assert keys.limit("a", tokens=0) == Quota()
    assert keys.load() == KeyFile(keys=keys.load().keys)
    assert Tenants(keys).tenant_of(key) == "a"


def test_a_quota_outlives_the_keys_of_its_tenant(keys: KeyStore) -> None:
    """A new key has the limits of the revoked one; adding and revoking keys changes no quota."""
    keys.add("a")
    keys.limit("a", requests=5)
    keys.revoke(keys.load().keys[0].key_id)
    assert keys.load() == KeyFile(keys=[], quotas={"a": Quota(requests_per_minute=5)})
    keys.add("a")
    keys.add("b")
    assert keys.load().quotas == {"a": Quota(requests_per_minute=5)}
    keys.limit("b", requests=1)
    assert keys.limit("a", requests=0) == Quota()
    assert keys.load().quotas == {"b": Quota(requests_per_minute=1)}


def test_a_quota_for_an_unknown_tenant_is_refused(keys: KeyStore) -> None:
    """The message lists the tenants that exist."""
    keys.add("team-a")
    with pytest.raises(UsageError, match="team-a"):
        keys.limit("team-b", requests=1)
    assert keys.load().quotas == {}
