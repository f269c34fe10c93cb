"""Building data."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

import headway
from headway.data import DataManifest, open_data
from headway.data.build import build
from headway.data.token_shard import map_tokens, read_header, token_bytes
from headway.data.tokenizer import train_tokenizer
from headway.errors import DataError
from headway.recipe import Recipe, to_yaml

Recipes = Callable[..., Recipe]

KILLED = """
import os, signal, sys
from headway.data.build import build
from headway.recipe import load

if __name__ == "__main__":
    def progress(*now):
        if now[int(sys.argv[2])] > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

    build(load(sys.argv[1]), workers=int(sys.argv[4]), progress=progress)
"""


def words(seed: int, size: int) -> str:
    """`size` characters of four-letter words, in lines."""
    letters = np.random.default_rng(seed).integers(ord("a"), ord("h"), size, dtype=np.uint8)
    letters[4::5] = ord(" ")
    letters[99::100] = ord("\n")
    return letters.tobytes().decode()


def many(folder: Path, count: int, size: int) -> None:
    """Put files of words into a folder."""
    folder.mkdir()
    for index in range(count):
        (folder / f"{index}.txt").write_text(words(index, size))


@pytest.fixture
def big(tmp_path: Path) -> dict[str, Path]:
    """A corpus of several units: one large file of lines and a folder of small files."""
    (tmp_path / "in" / "many").mkdir(parents=True)
    (tmp_path / "in" / "one.txt").write_text(words(0, 2_400_000))
    for index in range(30):
        (tmp_path / "in" / "many" / f"{index}.txt").write_text(words(index + 1, 40_000))
    return {"many": tmp_path / "in" / "many", "one": tmp_path / "in" / "one.txt"}


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that a build made."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def texts(recipe: Recipe, manifest: DataManifest, split: Any) -> list[str]:
    """The documents of a split, decoded."""
    folder = Path(recipe.data_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids: list[int] = []
    for name in manifest.sources:
        for shard in manifest.select(name, split):
            ids += map_tokens(folder / "shards" / shard.name).tolist()
    ends = [index for index, token in enumerate(ids) if token == manifest.end_of_document]
    assert not ids or ends[-1] == len(ids) - 1
    return [tokenizer.decode(ids[start:end]) for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]


def test_the_bytes_do_not_depend_on_workers_or_kills(recipes: Recipes, big: dict[str, Path], tmp_path: Path) -> None:
    """One worker, two workers, and builds killed with SIGKILL at several places end with the same files."""
    recipe = recipes(big, document_bytes=20_000)
    folder = Path(recipe.data_path)
    manifest = build(recipe, workers=1)
    expected = contents(folder)
    assert len([shard for shard in manifest.shards if shard.split == "train"]) > 3
    shutil.rmtree(folder)

    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    (tmp_path / "killed.py").write_text(KILLED)
    finished: dict[str, int] = {}
    environment = {**os.environ, "PYTHONPATH": str(Path(headway.__file__).parent.parent)}
    # Before anything, in the middle of a shard (the first of the second unit), and with two workers.
    first_unit = sum(shard.tokens for shard in manifest.shards[:2])
    for kill_when, workers in [(("0", "-1"), "1"), (("2", str(first_unit + 1)), "1"), (("0", "2500000"), "2")]:
        command = [sys.executable, str(tmp_path / "killed.py"), str(tmp_path / "recipe.yaml"), *kill_when, workers]
        assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
        assert not (folder / "manifest.json").exists()
        with pytest.raises(DataError, match="no built data"):
            open_data(recipe)
        for receipt in (folder / "units").glob("*.json"):
            # A unit that was finished is not done again.
            assert finished.setdefault(receipt.name, receipt.stat().st_mtime_ns) == receipt.stat().st_mtime_ns
    assert finished
    assert build(recipe, workers=2) == manifest
    for name, time in finished.items():
        assert (folder / "units" / name).stat().st_mtime_ns == time
    assert contents(folder) == expected


def test_a_finished_build_is_returned_at_once(recipes: Recipes, corpus: dict[str, Path], tmp_path: Path) -> None:
    """It reads no source again, does not need its sources, and serves other block lengths and mixtures."""
    recipe = recipes(corpus)
    reports: list[tuple[int, int, int]] = []
    manifest = build(recipe, workers=1, progress=lambda *progress: reports.append(progress))
    total = sum(path.stat().st_size for path in corpus.values())
    tokens = sum(shard.tokens for shard in manifest.shards)
    assert reports[0] == (0, total, 0)
    assert reports[-1] == (total, total, tokens)
    shutil.rmtree(tmp_path / "in")
    other = recipes(corpus, block_tokens=32, curriculum=[{"weights": {"small": 1.0}}], seed=3)
    assert build(other, progress=lambda *_: pytest.fail("built again")) == manifest


def test_two_builds_at_once_do_the_work_once(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """The second waits for the first, and returns its result."""
    builders: set[int] = set()

    def run(number: int) -> DataManifest:
        return build(recipes(corpus), workers=1, progress=lambda *_: builders.add(number))

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first == second
    assert len(builders) == 1


def test_documents_come_back_whole_and_in_order(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """Both splits together are the corpus: nothing lost, nothing twice, nothing changed, in the files' order."""
    recipe = recipes(corpus)
    manifest = build(recipe, workers=1)
    train, held_out = (texts(recipe, manifest, split) for split in ("train", "held_out"))
    originals = [
        json.loads(line)["text"] for name in ("large", "small") for line in corpus[name].read_text().splitlines()
    ]
    assert [text for text in originals if text in set(train)] == train
    assert [text for text in originals if text in set(held_out)] == held_out
    assert len(train) + len(held_out) == len(originals) == 120
    assert not set(train) & set(held_out)
    sources = manifest.sources.values()
    assert sum(source.documents for source in sources) == len(train)
    assert sum(source.held_out_documents for source in sources) == len(held_out) > 0


def test_equal_documents_are_on_one_side(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """A text that occurs again, in another source, is never both trained on and held out."""
    recipe = recipes({**corpus, "again": corpus["large"]}, held_out_share=0.5)
    manifest = build(recipe, workers=1)
    assert not set(texts(recipe, manifest, "train")) & set(texts(recipe, manifest, "held_out"))


def test_a_text_that_spells_the_end_of_document_token_does_not_end(recipes: Recipes, tmp_path: Path) -> None:
    """`<|endoftext|>` in a document is encoded as text; only real ends give the token."""
    for index in range(40):
        (tmp_path / f"{index}.txt").write_text(f"{index} <|endoftext|> " + words(index, 600))
    recipe = recipes({"s": f"{tmp_path}/*.txt"})
    manifest = build(recipe, workers=1)
    decoded = texts(recipe, manifest, "train") + texts(recipe, manifest, "held_out")
    assert len(decoded) == 40
    assert all("<|endoftext|>" in text for text in decoded)


def test_any_bytes_can_be_encoded() -> None:
    """Text that the tokenizer never saw decodes to itself: the 256 bytes are in its alphabet."""
    tokenizer = tokenizers.Tokenizer.from_str(train_tokenizer(iter(["abc"]), 300))
    text = "".join(map(chr, range(1, 0xD7FF, 7))) + "🙂"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.get_vocab_size() <= 300


def test_equal_inputs_give_an_equal_digest_on_any_machine(
    recipes: Recipes, corpus: dict[str, Path], tmp_path: Path
) -> None:
    """The digest depends only on the text, not on its folder or time; one changed letter changes it."""
    digests = []
    for name in ("here", "there"):
        shutil.copytree(tmp_path / "in", tmp_path / name)
        moved = {source: tmp_path / name / path.name for source, path in corpus.items()}
        digests.append(build(recipes(moved, path=str(tmp_path / f"built-{name}")), workers=1).digest)
    assert digests[0] == digests[1]
    lines = corpus["small"].read_text()
    corpus["small"].write_text(lines.replace("a", "b", 1))
    assert build(recipes(corpus), workers=1).digest != digests[0]


@pytest.mark.parametrize("harm", ["missing", "short", "tokenizer"])
def test_a_damaged_build_is_repaired(recipes: Recipes, corpus: dict[str, Path], harm: str) -> None:
    """Building again restores missing and truncated files, to the same bytes."""
    recipe = recipes(corpus)
    folder = Path(recipe.data_path)
    manifest = build(recipe, workers=1)
    expected = contents(folder)
    shard = folder / "shards" / manifest.shards[0].name
    if harm == "missing":
        shard.unlink()
    elif harm == "short":
        os.truncate(shard, 100)
    else:
        (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="to repair it"):
        open_data(recipe)
    assert build(recipe, workers=1) == manifest
    assert contents(folder) == expected


def test_a_damaged_build_whose_sources_changed_is_refused(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """Text that a run may have trained on is never replaced by other text."""
    recipe = recipes(corpus)
    manifest = build(recipe, workers=1)
    (Path(recipe.data_path) / "shards" / manifest.shards[0].name).unlink()
    corpus["large"].write_text(corpus["large"].read_text() + '{"text": "more"}\n')
    with pytest.raises(DataError, match="damaged, and its sources changed since"):
        build(recipe, workers=1)


def test_sources_that_change_under_a_build_stop_it(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """The message names the changed file; a build never mixes old and new text."""

    def change(done: int, _total: int, _tokens: int) -> None:
        if not done:
            corpus["small"].write_text(corpus["small"].read_text() + '{"text": "more"}\n')

    with pytest.raises(DataError, match=r"small\.jsonl: changed while the build was reading it"):
        build(recipes(corpus), workers=1, progress=change)
    build(recipes(corpus), workers=1)


def test_an_unfinished_build_whose_sources_changed_starts_over(
    recipes: Recipes, corpus: dict[str, Path], tmp_path: Path
) -> None:
    """The shards of the old files are deleted."""
    recipe = recipes(corpus)
    build(recipe, workers=1)
    (Path(recipe.data_path) / "manifest.json").unlink()
    corpus["large"].write_text(corpus["large"].read_text() + '{"text": "more"}\n')
    manifest = build(recipe, workers=1)
    shutil.rmtree(recipe.data_path)
    assert build(recipe, workers=1) == manifest
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_of_other_data_is_refused(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """The message names what differs and what to do, for finished and unfinished builds."""
    recipe = recipes(corpus)
    build(recipe, workers=1)
    other = recipes(corpus, tokenizer={"vocabulary": 300, "sample_bytes": 100_000})
    for _ in range(2):
        with pytest.raises(DataError, match=r"data\.tokenizer\.vocabulary: 400 there, 300 in the recipe.*data\.path"):
            build(other)
        (Path(recipe.data_path) / "manifest.json").unlink(missing_ok=True)


def test_a_folder_with_other_files_is_left_alone(recipes: Recipes, corpus: dict[str, Path], tmp_path: Path) -> None:
    """A data.path with files that are not built data is refused before anything is written."""
    with pytest.raises(DataError, match=r"holds files that are not built data \(large.jsonl, small.jsonl\)"):
        build(recipes(corpus, path=str(tmp_path / "in")))
    assert {path.name for path in (tmp_path / "in").iterdir()} <= {"large.jsonl", "small.jsonl", ".lock"}


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        ({"x.txt": b"\xff"}, {}, r"data\.sources\.s: 0 training documents with 0 tokens .*dropped: 1 × not UTF-8"),
        ({"x.png": b"x"}, {}, r"data\.sources\.s: .*dropped: 1 × unknown ending \.png"),
        ({"x.txt": b"one two three"}, {}, r"data\.sources\.s: .*cannot fill one block of 64 tokens .*dropped: nothing"),
        ({"x.txt": words(0, 9999).encode()}, {"held_out_share": 1e-9}, "raise data.held_out_share"),
    ],
)
def test_a_corpus_that_is_too_small_is_refused_and_leaves_nothing(
    recipes: Recipes, tmp_path: Path, files: dict[str, bytes], changes: dict[str, Any], message: str
) -> None:
    """The message names the source and why its files were dropped; the advice can be followed in the same folder."""
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(content)
    recipe = recipes({"s": tmp_path / "in"}, **changes)
    with pytest.raises(DataError, match=message) as caught:
        build(recipe, workers=1)
    assert caught.value.exit_code == 2
    for index in range(20):
        (tmp_path / "in" / f"more{index}.txt").write_text(words(5 + index, 5_000))
    build(recipes({"s": tmp_path / "in"}, held_out_share=0.2, document_bytes=1000), workers=1)


def test_long_documents_are_split(recipes: Recipes, tmp_path: Path) -> None:
    """Each file becomes documents of at most `data.document_bytes`."""
    many(tmp_path / "in", 20, 2_500)
    recipe = recipes({"s": tmp_path / "in"}, document_bytes=1000, held_out_share=0.3)
    manifest = build(recipe, workers=1)
    documents = texts(recipe, manifest, "train") + texts(recipe, manifest, "held_out")
    assert max(map(len, documents)) <= 1000
    assert len(documents) == 60
    assert sum(map(len, documents)) == 50_000


def test_token_width_follows_the_trained_vocabulary(recipes: Recipes, corpus: dict[str, Path]) -> None:
    """The requested vocabulary does not matter; the manifest holds the number of tokens a small corpus gave."""
    assert (token_bytes(65_536), token_bytes(65_537)) == (2, 4)
    recipe = recipes(corpus, tokenizer={"vocabulary": 100_000, "sample_bytes": 100_000})
    manifest = build(recipe, workers=1)
    assert 257 < manifest.vocabulary < 65_537
    assert read_header(Path(recipe.data_path) / "shards" / manifest.shards[0].name).token_bytes == 2


def test_only_files_that_a_build_makes_are_deleted(recipes: Recipes, corpus: dict[str, Path], tmp_path: Path) -> None:
    """A build that begins anew leaves what somebody put among its files, and whatever their links lead to."""
    recipe = recipes(corpus)
    folder = Path(recipe.data_path)
    build(recipe, workers=1)
    (folder / "manifest.json").unlink()
    (tmp_path / "mine.tokens").write_text("mine")
    (folder / "shards" / "old-000000.train.tokens").symlink_to(tmp_path / "mine.tokens")
    (folder / "shards" / ".x.0123abcd.partial").write_text("left by a killed build")
    mine = [
        "shards/notes.txt",
        "shards/large-000000.train.tokens.bak",
        "units/mine.json",
        "units/x.partial",
        "a.partial",
    ]
    for name in mine:
        (folder / name).write_text("mine")
    (folder / "shards" / "large-000009.train.tokens").mkdir()
    corpus["large"].write_text(corpus["large"].read_text() + '{"text": "more"}\n')
    build(recipe, workers=1)
    assert [(folder / name).read_text() for name in mine] == ["mine"] * len(mine)
    assert (folder / "shards" / "large-000009.train.tokens").is_dir()
    assert (tmp_path / "mine.tokens").read_text() == "mine"
    assert not (folder / "shards" / "old-000000.train.tokens").is_symlink()
    assert not (folder / "shards" / ".x.0123abcd.partial").exists()


@pytest.mark.parametrize("plan", ["[]", "{", '{"meaning": []}', "[" * 200_000, '{"files": {}}'])
def test_a_plan_that_no_build_writes_is_refused(recipes: Recipes, corpus: dict[str, Path], plan: str) -> None:
    """By name, and nothing is deleted."""
    recipe = recipes(corpus)
    folder = Path(recipe.data_path)
    folder.mkdir()
    (folder / "plan.json").write_text(plan)
    with pytest.raises(DataError, match=r"plan\.json: "):
        build(recipe, workers=1)
    assert (folder / "plan.json").read_text() == plan


@pytest.mark.parametrize("receipt", ["[" * 100_000, "[]", "{}", "[" + "0," * 500_000 + "0]", ""], ids=len)
def test_a_unit_with_a_foreign_receipt_is_built_again(receipt: str, recipes: Recipes, tmp_path: Path) -> None:
    """A receipt only saves work, so one that is none costs that work."""
    many(tmp_path / "in", 30, 10_000)
    recipe = recipes({"text": tmp_path / "in"}, document_bytes=2000)
    manifest = build(recipe, workers=1)
    folder = Path(recipe.data_path)
    (folder / "manifest.json").unlink()
    for path in (folder / "units").glob("*-*.json"):
        path.write_text(receipt)
    assert build(recipe, workers=1) == manifest
