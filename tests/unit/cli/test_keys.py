"""`headway keys`: what it prints, stores and rejects, with and without `--quiet`."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Headway

from headway.serve.tenants.key_file import KeyStore, Quota


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default file of keys."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "keys.json"


def test_a_key_is_the_result_and_the_rest_a_remark(headway: Headway, file: Path) -> None:
    """The key goes to standard output; `--quiet` drops the remark and keeps the key."""
    loud, quiet = headway("keys", "add", "team-a"), headway("keys", "add", "team-a", "--quiet")
    assert [answer.out[:3] for answer in (loud, quiet)] == ["hw-", "hw-"]
    assert [len(answer.out.split()) for answer in (loud, quiet)] == [1, 1]
    assert "once" in loud.err
    assert quiet.err == ""
    assert len(KeyStore(file).load().keys) == 2


def test_limits_are_set_shown_and_taken_away(headway: Headway, file: Path) -> None:
    """Each limit is set separately; limits that are not given stay."""
    headway("keys", "add", "team-a")
    assert headway("keys", "limit", "team-a", "--requests", "600").out == "team-a may use 600 requests per minute\n"
    text = headway("keys", "limit", "team-a", "--tokens", "100000").out
    assert text == "team-a may use 600 requests and 100,000 tokens per minute\n"
    assert KeyStore(file).load().quotas == {"team-a": Quota(requests_per_minute=600, tokens_per_minute=100_000)}
    shown = headway("keys", "ls").out.splitlines()
    assert shown[0].split()[-2:] == ["requests/min", "tokens/min"]
    assert shown[-1].split()[-2:] == ["600", "100,000"]
    document = headway("keys", "limit", "team-a", "--requests", "0", "--json").document
    assert document == {
        "tenant": "team-a",
        "requests_per_minute": None,
        "tokens_per_minute": 100_000,
        "file": "keys.json",
    }
    assert headway("keys", "limit", "team-a", "--tokens", "0").out == "team-a has no limits\n"
    assert KeyStore(file).load().quotas == {}


def test_a_list_shows_limits_without_keys_too(headway: Headway, file: Path) -> None:
    """Limits of a tenant without keys are listed, because they apply to its next key."""
    headway("keys", "add", "team-a")
    headway("keys", "limit", "team-a", "--requests", "5")
    headway("keys", "revoke", KeyStore(file).load().keys[0].key_id)
    expected = {"key": None, "tenant": "team-a", "created": None, "requests_per_minute": 5, "tokens_per_minute": None}
    assert headway("keys", "ls", "--json").document == [expected]
    assert headway("keys", "ls").out.splitlines()[-1].split() == ["-", "team-a", "-", "5", "-"]
    assert headway("keys", "limit", "team-a", "--requests", "0").code == 0
    assert headway("keys", "ls", "--json").document == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["team-a"], "--requests"),
        (["team-b", "--requests", "1"], "team-a"),
        (["team-a", "--requests=-1"], "greater than or equal to 0"),
        (["team-a", "--tokens", "many"], "integer"),
    ],
)
def test_a_limit_that_means_nothing_is_wrong_use(
    headway: Headway, file: Path, words: list[str], complaint: str
) -> None:
    """The command exits with code 2, says what to do instead, and changes nothing."""
    headway("keys", "add", "team-a")
    before = file.read_bytes()
    answer = headway("keys", "limit", *words)
    assert (answer.code, answer.out) == (2, "")
    assert complaint in " ".join(answer.err.replace("│", " ").split())  # in a box of some width
    assert file.read_bytes() == before


def test_quiet_says_only_results(headway: Headway, file: Path) -> None:
    """`--quiet` prints no confirmations; `--json` still prints its document."""
    assert (headway("keys", "ls").err != "", headway("keys", "ls", "--quiet").err) == (True, "")
    headway("keys", "add", "team-a")
    limited = headway("keys", "limit", "team-a", "--requests", "1", "--quiet")
    assert (limited.code, limited.out, limited.err) == (0, "", "")
    name = KeyStore(file).load().keys[0].key_id
    assert name in headway("keys", "ls", "--quiet").out
    revoked = headway("keys", "revoke", name, "--quiet")
    assert (revoked.code, revoked.out, revoked.err) == (0, "", "")
    headway("keys", "add", "team-a")
    assert (
        headway("keys", "revoke", KeyStore(file).load().keys[0].key_id, "--quiet", "--json").document["tenant"]
        == "team-a"
    )


def test_a_full_disk_is_one_line_and_changes_nothing(headway: Headway, file: Path) -> None:
    """The keys are those of before, and no part of a file is left; a limit of file sizes is the double of a disk."""
    headway("keys", "add", "team-a")
    before = file.read_bytes()
    most = len(before) + 10
    done = subprocess.run(
        [sys.executable, "-m", "headway.cli", "keys", "add", "team-b"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "headway: keys.json: File too large\n")
    assert file.read_bytes() == before
    assert sorted(each.name for each in file.parent.iterdir()) == [".keys.json.lock", "keys.json"]
