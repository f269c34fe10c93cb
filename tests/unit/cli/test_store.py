"""`headway store` lists sizes, deletes only garbage, and copies whole runs."""

import json
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Headway
from tests.unit.cli.story import Story, plan, trained

from headway.objectstore.folder import FolderStore
from headway.runs import Run, keys

HALF = "0123456789abcdef" * 2
"""Name of a temporary file."""


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
    assert headway("store", "ls", "--json").document == {"store": store.url, "runs": [], "findings": []}


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
    half = store.root / ".incoming" / HALF
    half.write_bytes(b"half")
    answer = headway("store", "gc", "other", "--older-than", "0", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert headway("store", "ls", "--json").document["runs"][1]["garbage_bytes"] == 1500
    assert half.exists()


def test_gc_leaves_a_run_with_a_damaged_journal_alone(headway: Headway, store: FolderStore) -> None:
    """A run with a damaged journal is skipped with a message, and the others are cleaned."""
    killed(store, "bad")
    killed(store)
    store.put(keys.journal_entry("bad", 2), [b"rubbish"])
    before = [*store.list("runs/bad/")]
    answer = headway("store", "gc")
    assert answer.code == 1
    assert "headway: run bad: journal entry 2 is unreadable" in answer.err
    assert [*store.list("runs/bad/")] == before
    assert len(answer.out.splitlines()) == 2
    bad, tale = headway("store", "ls", "--json").document["runs"]
    assert (bad["garbage_bytes"], tale["garbage_bytes"]) == (None, 0)
    assert " ? " in headway("store", "ls").out


def test_unfinished_writes_go_by_age(headway: Headway, store: FolderStore) -> None:
    """A recent write may be in use; one older than the limit is abandoned."""
    trained(Story(store, "tale"))
    half = store.root / ".incoming" / HALF
    half.write_bytes(b"half")
    assert headway("store", "gc", "--json").document["objects"] == []
    assert half.exists()
    objects = headway("store", "gc", "--older-than", "0", "--json").document["objects"]
    assert [(each["key"], each["bytes"]) for each in objects] == [(f".incoming/{HALF}", None)]
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


def clutter(store: FolderStore, outside: Path) -> dict[str, bytes]:
    """Puts into a store, and beside it, what people put there; returns all of it by path."""
    outside.mkdir()
    (outside / "thesis.tex").write_bytes(b"years of work")
    (outside / HALF).write_bytes(b"years of work")
    inside = [
        ".DS_Store",
        "notes.txt",
        ".incoming/notes",
        ".incoming/folder/x",
        "runs/.DS_Store",
        "runs/tale (copy)/recipe.yaml",
        "runs/tale.bak~/journal/00000001.json",
        "runs/tale/journal/00000001 (conflict).json",
        "runs/tale/journal/99999999999999.json",
        "runs/tale/journal/.DS_Store",
        "runs/tale/checkpoints/2026-11-01/best.safetensors",
        "runs/tale/checkpoints/eval-1/scores.json",
        "runs/tale/checkpoints/000000000002000-00000001/notes.md",
        "runs/tale/checkpoints/000000000002000-00000001 (copy)/manifest.json",
        "runs/tale/checkpoints/.snapshot/000000000002000-00000001/manifest.json",
        "submissions/x.json",
        "models/coder (copy)/journal/00000001.json",
        "backup/runs/tale/checkpoints/000000000002000-00000001/00000-of-00002.safetensors",
    ]
    for name in inside:
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    for name in ("runs/linked", "runs/tale/checkpoints/linked", "runs/tale/checkpoints/000000000004000-00000001"):
        (store.root / name).symlink_to(outside)
    (store.root / ".incoming" / HALF[::-1]).symlink_to(outside / "thesis.tex")
    files = [*(store.root / name for name in inside), *outside.iterdir()]
    return {str(path): path.read_bytes() for path in files}


def test_gc_deletes_only_what_headway_wrote(headway: Headway, store: FolderStore, tmp_path: Path) -> None:
    """Copies, notes, folders with dates, links, sync conflicts, snapshots stay; a dry run says what will be deleted."""
    killed(store)
    before = clutter(store, tmp_path / "outside")
    half = store.root / ".incoming" / HALF
    half.write_bytes(b"half")
    links = {str(path) for path in store.root.rglob("*") if path.is_symlink()}
    dry = headway("store", "gc", "--older-than", "0", "--dry-run", "--json")
    answer = headway("store", "gc", "--older-than", "0", "--json")
    garbage = [f"runs/tale/checkpoints/000000000002000-00000001/0000{rank}-of-00002.safetensors" for rank in (0, 1)]
    assert [each["key"] for each in answer.document["objects"]] == [*garbage, f".incoming/{HALF}"]
    assert [each["key"] for each in dry.document["objects"]] == [*garbage, f".incoming/{HALF}"]
    assert dry.document["findings"] == answer.document["findings"]
    assert not half.exists()
    assert {path: Path(path).read_bytes() for path in before} == before
    assert {str(path) for path in store.root.rglob("*") if path.is_symlink()} == links
    assert (dry.code, answer.code) == (1, 1)
    findings = answer.document["findings"]
    for place in (
        "runs/tale (copy)",
        "runs/linked",
        "runs/tale/checkpoints/2026-11-01/best.safetensors",
        "runs/tale/checkpoints/linked",
        ".incoming/notes",
        ".incoming/folder",
    ):
        assert any(finding.startswith(f"{place}: ") for finding in findings), place
    assert len(findings) == len(set(findings))
    assert all(f"headway: {finding}" in answer.err.splitlines() for finding in findings)


def test_one_bad_run_hides_no_other(headway: Headway, store: FolderStore, tmp_path: Path) -> None:
    """Views list what is good, say what is not, and exit with 0; `gc` exits with 1."""
    trained(Story(store, "tale"))
    clutter(store, tmp_path / "outside")
    (store.root / "runs/submissions").mkdir()
    (store.root / "runs/submissions/x.json").write_bytes(b"{}")
    killed(store, "bad")
    store.put(keys.journal_entry("bad", 1), [b"[" * 200_000])
    for words in (("runs",), ("store", "ls")):
        answer = headway(*words, "--json")
        assert answer.code == 0
        assert {"tale", "bad"} == {row["run"] for row in answer.document["runs"]}
        findings = "\n".join(answer.document["findings"])
        for place in (
            "runs/tale (copy): is not a name for a run",
            "runs/linked: is a link",
            "runs/submissions/: holds",
        ):
            assert place in findings
        assert findings.splitlines()[0] in headway(*words).err
    assert "submissions/x.json: not readable" in "\n".join(headway("runs", "--json").document["findings"])
    answer = headway("store", "gc", "--json")
    assert answer.code == 1
    assert any(finding.startswith("run bad: journal entry 1 is unreadable") for finding in answer.document["findings"])


@pytest.mark.parametrize("run", ["tale/checkpoints", ".", "..", "../x", "/x", "a b", ""])
def test_what_is_no_name_of_a_run_is_wrong_use(headway: Headway, store: FolderStore, run: str, tmp_path: Path) -> None:
    """No command takes it, and nothing is written."""
    trained(Story(store, "tale"))
    (tmp_path / "tale.yaml").write_text(json.dumps(plan().model_dump(mode="json")))
    before = [*store.list("")]
    for words in (
        ("train", "tale.yaml", f"--run={run}"),
        ("job", "tale.yaml", f"--run={run}"),
        ("verify", run),
        ("status", run),
        ("logs", run),
        ("store", "ls", run),
        ("store", "gc", run),
        ("store", "cp", run, "other"),
        ("fingerprint", run),
    ):
        answer = headway(*words)
        assert (answer.code, answer.out) == (2, ""), words
    assert [*store.list("")] == before
