"""API keys: shown once, kept as digests, and known or revoked without a restart."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headway.errors import UsageError
from headway.serve.tenants import Keys, Tenants


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A file of keys that does not exist yet."""
    return Keys(tmp_path / "kept" / "keys.json")


def test_a_key_tells_its_tenant(keys: Keys) -> None:
    """Of several, each its own; nobody's key tells nobody."""
    first, second = keys.add("a"), keys.add("b")
    tenants = Tenants(keys)
    assert (tenants.of(first), tenants.of(second)) == ("a", "b")
    assert [tenants.of(wrong) for wrong in ("", "hw-", first[:-1], first + "x", first.upper())] == [None] * 5


def test_a_key_is_kept_nowhere(keys: Keys) -> None:
    """Neither it nor a part of it is in the file, which only its owner reads."""
    key = keys.add("a")
    text = keys.path.read_text()
    assert not any(key[start : start + 12] in text for start in range(len(key) - 11))
    assert keys.path.stat().st_mode & 0o077 == 0


def test_a_running_endpoint_follows_the_file(keys: Keys) -> None:
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


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', '[{"tenant": "a"}]', "[1]"])
def test_a_file_that_got_damaged_locks_nobody_out(keys: Keys, text: str) -> None:
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


def test_an_emptied_file_locks_all_out(keys: Keys) -> None:
    """The last key was revoked."""
    key, clock = keys.add("a"), Clock()
    tenants = Tenants(keys, clock)
    keys.revoke(keys.read()[0].name)
    clock.now = 2.0
    assert tenants.of(key) is None


def test_a_file_that_others_may_read_stays_so(keys: Keys) -> None:
    """Whoever serves is to see a revocation, whoever revokes."""
    keys.add("a")
    keys.path.chmod(0o640)
    keys.add("b")
    assert keys.path.stat().st_mode & 0o777 == 0o640


def test_keys_made_at_once_are_all_kept(keys: Keys) -> None:
    """No change gets lost, whoever reads and writes meanwhile."""
    with ThreadPoolExecutor(8) as many:
        made = list(many.map(lambda number: keys.add(str(number)), range(40)))
    assert len({*made}) == len(keys.read()) == 40


def test_revoking_what_is_not_there_names_what_is(keys: Keys) -> None:
    """By name and tenant."""
    keys.add("team-a")
    with pytest.raises(UsageError, match="team-a"):
        keys.revoke("00000000")
