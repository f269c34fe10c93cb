"""A file of keys that somebody else wrote, or that an accident wrote into, is refused in one line."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headway.errors import UsageError
from headway.serve.tenants import key_file
from headway.serve.tenants.key_file import KeyFile, KeyStore

ENTRY = {"tenant": "team-a", "sha256": "0" * 64, "created": 1.8e9}


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    """A key file with one key."""
    store = KeyStore(tmp_path / "keys.json")
    store.add("team-a")
    return store


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "a" * 1001},
        {"sha256": "0" * 63},
        {"sha256": "0" * 64 + "\n"},
        {"sha256": "../" * 21 + "x"},
        {"created": -1},
        {"created": 1e300},
        {"created": float("nan")},
        {"created": 10**400},
    ],
    ids=str,
)
def test_a_key_has_a_tenant_a_digest_and_a_moment(keys: KeyStore, change: dict[str, object]) -> None:
    """Each is printed or computed with, so each has bounds."""
    keys.path.write_text(json.dumps({"keys": [ENTRY | change]}))
    with pytest.raises(UsageError, match="is not a file of API keys"):
        keys.load()


def deep(path: Path) -> None:
    """Write JSON of 100,000 levels."""
    path.write_text("[" * 100_000)


def endless(path: Path) -> None:
    """Write a sparse file of 50 GB."""
    with path.open("wb") as file:
        file.truncate(50 * 10**9)


def device(path: Path) -> None:
    """Make a link to a device."""
    path.unlink()
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    """Make a pipe that nobody writes."""
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("replace", [deep, endless, device, pipe])
def test_no_file_holds_a_reader_up(keys: KeyStore, replace: Callable[[Path], None]) -> None:
    """Reading ends, and neither a change nor a look leaves anything behind."""
    replace(keys.path)
    before = {path.name for path in keys.path.parent.iterdir()}
    for act in (keys.load, lambda: keys.add("team-b"), lambda: keys.revoke("00000000")):
        with pytest.raises(UsageError, match=r"keys\.json"):
            act()
    assert {path.name for path in keys.path.parent.iterdir()} == before


def test_a_key_file_behind_a_link_is_read_and_not_replaced(keys: KeyStore) -> None:
    """Kubernetes mounts secrets as links; a change through one would tear it off."""
    link = KeyStore(keys.path.with_name("mounted.json"))
    link.path.symlink_to(keys.path)
    assert link.load() == keys.load()
    with pytest.raises(UsageError, match=r"mounted\.json is a link"):
        link.add("team-b")
    assert link.path.is_symlink()
    assert len(keys.load().keys) == 1


def test_a_file_that_others_may_write_is_theirs_no_longer(keys: KeyStore) -> None:
    """A change takes write access from them; who may read it stays."""
    keys.path.chmod(0o666)
    keys.add("team-b")
    assert keys.path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("tenant", ["", "a\nb", "x" * 201])
def test_a_tenant_without_a_proper_name_gets_no_key(keys: KeyStore, tenant: str) -> None:
    """The file stays one that can be read."""
    before = keys.path.read_bytes()
    with pytest.raises(UsageError, match="is not a name for a tenant"):
        keys.add(tenant)
    assert keys.path.read_bytes() == before


def test_a_limit_beyond_all_numbers_is_wrong_use(keys: KeyStore) -> None:
    """It would make the file unreadable."""
    with pytest.raises(UsageError, match="a limit is a number"):
        keys.limit("team-a", tokens=10**30)
    assert keys.load().quotas == {}


def test_a_file_has_room_for_many_keys(keys: KeyStore) -> None:
    """The bound is far beyond what people keep."""
    many = KeyFile.model_validate({"keys": [ENTRY | {"tenant": f"team-{number}"} for number in range(50_000)]})
    keys.path.write_text(json.dumps(many.model_dump(), indent=1))
    assert keys.path.stat().st_size < key_file.MAX_BYTES
    assert len(keys.load().keys) == len(many.keys)
