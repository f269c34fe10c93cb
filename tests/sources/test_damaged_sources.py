"""Whatever lies in a source, a build of data ends, says why in a line, loses nothing silently, and can be repeated.

`HEADWAY_DAMAGES=2000` says how many trees there are.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from headway.data import unit as units
from headway.data.token_shard import map_tokens
from tests.forger.command import Outcome, in_process
from tests.sources.file_count import file_count
from tests.sources.source_tree import TREES, Planted, plant

DAMAGES = int(os.environ.get("HEADWAY_DAMAGES", "50"))
"""Trees; one in twenty is also built by two processes."""
SOUND = [f"sound {number}: " + "so it goes on and on. " * 6 for number in range(24)]
"""Documents that are there always, so that there is something to build."""
PATHS = ("", "", "", "/**/*.txt", "/*", "/**/*.jsonl", "/*/*", "/**/*.*", "/**")
CHECKS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, and in it the cache."""
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("headway.data.build.available_cores", lambda: 1)
    yield tmp_path
    (tmp_path / "recipe.json").unlink(missing_ok=True)


def recipe(work: Path, path: str, document_bytes: int) -> Path:
    """A recipe over the tree and what is sound."""
    size = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 2, "ffn_width": 64}
    document = {
        "name": "fuzz",
        "data": {
            "sources": {"tree": {"path": f"{work}/tree{path}"}},
            "tokenizer": {"vocabulary": 300, "sample_bytes": 10_000},
            "block_tokens": 16,
            "held_out_share": 0.3,
            "document_bytes": document_bytes,
        },
        "model": size,
        "train": {"tokens": 1024, "batch_tokens": 64, "micro_batch_tokens": 16, "lanes": 1},
    }
    (work / "recipe.json").write_text(json.dumps(document))
    return work / "recipe.json"


def grow(work: Path, tree: list[Planted]) -> None:
    """Make the tree, in place of the one before."""
    for name in ("tree", "beside", "built", "again", "cache"):
        shutil.rmtree(work / name, ignore_errors=True)
    for name in ("tree", "cache"):
        (work / name).mkdir()
    for name in ("sound.jsonl", "d/sound.jsonl"):
        (work / "tree" / name).parent.mkdir(exist_ok=True)
        lines = [json.dumps({"text": f"{name} {text}"}) + "\n" for text in SOUND]
        (work / "tree" / name).write_text("".join(lines))
    for number, text in enumerate(SOUND):
        (work / "tree" / "d" / f"{number}.txt").write_text(text)
    plant(tree, work / "tree")


def build(work: Path, path: str, document_bytes: int, to: Path) -> Outcome:
    """Build with the command line; it must not have faults."""
    outcome = in_process(("data", "build", str(recipe(work, path, document_bytes)), f"data.path={to}", "--json"))
    faults = [*outcome.faults()]
    assert not faults, "\n".join(faults)
    if outcome.code:
        lines = outcome.err.strip().splitlines()
        assert len([line for line in lines if line.startswith("headway")]) == 1, outcome.err
        assert "fault of Headway" not in outcome.err
        assert outcome.code == 2, outcome.err
    return outcome


def check_sums(work: Path, path: str, document: Any) -> None:
    """All that was planted was read, or counted."""
    source = document["sources"]["tree"]
    counts = source["input"]
    assert counts["files"] == source["files"] + sum(counts["files_left_out"].values())
    documents = source["documents"] + source["held_out_documents"]
    assert counts["documents"] == documents + sum(counts["documents_left_out"].values())
    assert counts["text_bytes"] == counts["text_bytes_kept"] + counts["text_bytes_left_out"]
    for reason in source["dropped"]:
        assert reason.isprintable(), reason
    if not path:
        assert counts["files"] == file_count(work / "tree", [Path(document["path"]), work / "cache"])


def check_texts(document: Any, path: str) -> None:
    """The documents that are sound came through, once each."""
    folder = Path(document["path"])
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts: Counter[str] = Counter()
    for shard in document["shards"]:
        ids: list[int] = []
        for token in map_tokens(folder / "shards" / shard["name"]).tolist():
            if token == document["end_of_document"]:
                texts[tokenizer.decode(ids)] += 1
                ids = []
            else:
                ids.append(token)
    source = document["sources"]["tree"]
    assert texts.total() == source["documents"] + source["held_out_documents"]
    assert sum(len(text.encode()) * number for text, number in texts.items()) == source["input"]["text_bytes_kept"]
    if path in {"", "/**/*.*", "/**"}:
        for text in SOUND:
            assert texts[text] == texts[f"sound.jsonl {text}"] == texts[f"d/sound.jsonl {text}"] == 1


def play(work: Path, tree: list[Planted], path: str, document_bytes: int) -> None:
    """Build over a tree, and once more in a folder inside the tree."""
    note(f"path {path!r}, document_bytes {document_bytes}, tree:")
    for each in tree:
        note(repr(each))
    grow(work, tree)
    first = build(work, path, document_bytes, work / "built")
    if first.code == 0:
        check_sums(work, path, first.document)
        if document_bytes > 1000:
            check_texts(first.document, path)
    second = build(work, path, document_bytes, work / "tree" / "built")
    assert first.code == second.code, (first.err, second.err)
    if first.code == 0:
        check_sums(work, path, second.document)
        assert first.document["digest"] == second.document["digest"]


@settings(CHECKS, max_examples=DAMAGES)
@given(TREES, st.sampled_from(PATHS), st.sampled_from([1 << 20, 1 << 20, 64, 4]), st.sampled_from([1 << 20, 500, 1]))
def test_whatever_lies_in_a_source_is_read_or_counted(
    work: Path, tree: list[Planted], path: str, document_bytes: int, unit_bytes: int
) -> None:
    """No traceback, no hang, no silent loss; sums close; and the same tree gives the same digest again.

    The second time inside the tree.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "MIN_UNIT_BYTES", unit_bytes)
        play(work, tree, path, document_bytes)


@settings(CHECKS, max_examples=max(2, DAMAGES // 20))
@given(TREES)
def test_two_processes_build_of_it_what_one_does(work: Path, tree: list[Planted]) -> None:
    """The same digest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "MIN_UNIT_BYTES", 500)
        grow(work, tree)
        first = build(work, "", 1 << 20, work / "built")
        patch.setattr("headway.data.build.available_cores", lambda: 2)
        second = build(work, "", 1 << 20, work / "again")
        assert first.code == second.code
        assert first.code or first.document["digest"] == second.document["digest"]
