"""`headway store` lists sizes, deletes only garbage, and copies whole runs."""

import pytest
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, trained

from headway.objectstore.folder import FolderStore
from headway.runs import Run, keys


def killed(store: FolderStore, name: str = "tale") -> Story:
    """A run whose first attempt was killed during a save, and whose second attempt is open."""
    story = Story(store, name)
    story.claim(100)
    story.commit(105, 1000)
    prefix = keys.checkpoint(name, 2000, 1)
    store.put(f"{prefix}00000-of-00002.safetensors", [bytes(1000)])
    store.put(f"{prefix}00001-of-00002.safetensors", [bytes(500)])
    story.claim(200)
    store.put(f"{keys.checkpoint(name, 3000, story.attempt)}00000-of-00001.safetensors", [bytes(10)])
    return story


def test_ls_tells_what_each_run_takes(headway: Headway, store: FolderStore) -> None:
    """Each run has a line with entries, checkpoints, garbage and total; `--json` has them in bytes."""
    killed(store)
    trained(Story(store, "whole"))
    document = headway("store", "ls", "--json").document
    first, second = document["runs"]
    assert document["store"] == store.url
    assert (first["run"], first["entries"], first["checkpoints"], first["garbage_bytes"]) == ("tale", 3, 1, 1500)
    assert (second["run"], second["entries"], second["garbage_bytes"]) == ("whole", 12, 0)
    assert (first["objects"], first["bytes"]) == (9, sum(length for _, length in store.sizes("runs/tale/")))
    header, row, _ = headway("store", "ls").out.splitlines()
    assert header.split() == ["run", "entries", "checkpoints", "their", "size", "garbage", "all"]
    assert row.split()[:3] == ["tale", "3", "1"]
    assert "1.5 kB" in row
    assert [each["run"] for each in headway("store", "ls", "whole", "--json").document["runs"]] == ["whole"]


def test_ls_of_an_empty_store_is_no_error(headway: Headway, store: FolderStore) -> None:
    """The terminal shows how to start; `--json` prints an empty list."""
    assert "start one with headway train" in headway("store", "ls").err
    assert headway("store", "ls", "--quiet").err == ""
    assert headway("store", "ls", "--json").document == {"store": store.url, "runs": []}


def test_a_dry_run_deletes_nothing(headway: Headway, store: FolderStore) -> None:
    """A dry run lists exactly what gc would delete, and deletes nothing."""
    killed(store)
    before = [*store.list("")]
    document = headway("store", "gc", "--dry-run", "--json").document
    assert [*store.list("")] == before
    assert (document["dry_run"], document["bytes"], len(document["objects"])) == (True, 1500, 2)
    done = headway("store", "gc", "--json").document
    assert done == {**document, "dry_run": False}
    assert {each["key"] for each in done["objects"]} == {*before} - {*store.list("")}


def test_gc_deletes_what_is_garbage_and_finds_nothing_after(headway: Headway, store: FolderStore) -> None:
    """Each checkpoint has a line with the reason. Committed and live checkpoints stay; a second call finds nothing."""
    killed(store)
    answer = headway("store", "gc")
    header, row = answer.out.splitlines()
    assert header.split() == ["run", "checkpoint", "at", "objects", "size", "why"]
    assert row.split() == ["tale", "2,000", "2", "1.5", "kB", "attempt", "1", "never", "committed", "it"]
    assert answer.err == "headway: deleted 2 objects with 1.5 kB\n"
    assert [*store.folders("runs/tale/checkpoints/")] == ["000000000001000-00000001", "000000000003000-00000003"]
    assert headway("store", "gc").out == f"nothing to delete in {store.url}\n"
    assert headway("verify", "tale").code == 0


def test_gc_keeps_to_the_runs_that_are_named(headway: Headway, store: FolderStore) -> None:
    """The garbage of other runs and unfinished writes stay; `--quiet` prints only the result."""
    killed(store)
    killed(store, "other")
    aside = store.root / ".incoming"
    (aside / "half").write_bytes(b"half")
    answer = headway("store", "gc", "other", "--older-than", "0", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert headway("store", "ls", "--json").document["runs"][1]["garbage_bytes"] == 1500
    assert (aside / "half").exists()


def test_gc_leaves_a_run_with_a_damaged_journal_alone(headway: Headway, store: FolderStore) -> None:
    """A run with a damaged journal is skipped with a message, and the others are cleaned."""
    killed(store, "bad")
    killed(store)
    store.put(keys.journal_entry("bad", 2), [b"rubbish"])
    before = [*store.list("runs/bad/")]
    answer = headway("store", "gc")
    assert answer.code == 0
    assert "headway: skipped: run bad: journal entry 2 is unreadable" in answer.err
    assert [*store.list("runs/bad/")] == before
    assert len(answer.out.splitlines()) == 2
    bad, tale = headway("store", "ls", "--json").document["runs"]
    assert (bad["garbage_bytes"], tale["garbage_bytes"]) == (None, 0)
    assert " ? " in headway("store", "ls").out


def test_unfinished_writes_go_by_age(headway: Headway, store: FolderStore) -> None:
    """A recent write may be in use; one older than the limit is abandoned."""
    trained(Story(store, "tale"))
    half = store.root / ".incoming" / "half"
    half.write_bytes(b"half")
    assert headway("store", "gc", "--json").document["objects"] == []
    assert half.exists()
    objects = headway("store", "gc", "--older-than", "0", "--json").document["objects"]
    assert [(each["key"], each["bytes"]) for each in objects] == [(".incoming/half", None)]
    assert "never finished" in objects[0]["reason"]
    assert not half.exists()


def test_a_copy_is_a_run_of_the_other_store(headway: Headway, store: FolderStore) -> None:
    """The copy is verified and has the same fingerprint; copying again changes nothing."""
    trained(Story(store, "tale"))
    other = FolderStore(store.root.parent / "other")
    answer = headway("store", "cp", "tale", other.url)
    assert answer.code == 0
    assert answer.out == f"copied run tale to {other.url}: 4 checkpoints with 672 bytes\n"
    assert headway("verify", "tale", "--store", other.url).code == 0
    assert headway("fingerprint", "tale", "--store", other.url).out == headway("fingerprint", "tale").out
    document = headway("store", "cp", "tale", other.url, "--json").document
    assert document == {
        "run": "tale",
        "from": store.url,
        "to": other.url,
        "checkpoints": [2000, 4000, 7000, 10000],
        "bytes": 672,
    }
    assert Run(other, "tale").history() == Run(store, "tale").history()


def test_a_damaged_run_is_not_copied(headway: Headway, store: FolderStore) -> None:
    """The command exits with 1 and names the damage, and the destination has no such run."""
    story = Story(store, "tale")
    story.claim(100)
    shard = story.commit(105, 1000)
    store.put(shard, [store.get(shard)[:-1] + b"?"])
    other = (store.root.parent / "other").as_uri()
    answer = headway("store", "cp", "tale", other)
    assert (answer.code, answer.out) == (1, "")
    assert shard in answer.err
    assert headway("verify", "tale", "--store", other).code == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("ls", "missing"), "there are: tale"),
        (("gc", "missing"), "there are: tale"),
        (("cp", "missing", "elsewhere"), "there are: tale"),
        (("cp", "tale", "ftp://host/x"), "unknown kind of store"),
        (("cp", "tale", "store"), "already; choose another store"),
        (("ls", "--store", "ftp://host/x"), "unknown kind of store"),
        (("gc", "--older-than", "-1"), "--older-than"),
        (("cp", "tale"), "URL"),
    ],
)
def test_wrong_use_is_said(headway: Headway, store: FolderStore, words: tuple[str, ...], complaint: str) -> None:
    """The command exits with 2, prints nothing on standard output, and says what to do instead."""
    killed(store)
    before = [*store.list("")]
    answer = headway("store", *words)
    assert (answer.code, answer.out) == (2, "")
    assert complaint in answer.err
    assert [*store.list("")] == before
