"""From a source's path to documents."""

import glob
import gzip
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headway.data import documents
from headway.data.documents import read_documents, split_at_lines
from headway.data.folder_walk import matches
from headway.data.read_counts import ReadCounts
from headway.data.source import Inventory, inventory
from headway.data.unit import plan_units
from headway.errors import DataError
from headway.recipe import Source

NOWHERE = Path("/nowhere")


def read(path: Path | str, *, text_key: str = "text", max_bytes: int = 1 << 20) -> tuple[list[str], Counter[str]]:
    """All documents of a source, and what was dropped."""
    listing = inventory("s", Source(path=str(path), text_key=text_key), exclude=NOWHERE)
    units, unreadable = plan_units("s", listing, text_key, max_bytes)
    counts = ReadCounts()
    spans = [span for unit in units for span in unit.spans]
    texts = [item.text for span in spans for item in read_documents(span, text_key, max_bytes, counts)]
    assert counts.documents == len(texts) + counts.dropped.total()
    return texts, listing.dropped + unreadable + counts.dropped


def names(inventory: Inventory) -> list[str]:
    """The names of an inventory's files."""
    return [file.name for file in inventory.files]


TEXTS = ["first\nof many", "zweites, größer", "第三\n"]


def compress(raw: bytes, codec: str) -> bytes:
    """Bytes compressed as the ending says, in two frames, which both formats allow."""
    half = len(raw) // 2
    if codec == ".gz":
        return gzip.compress(raw[:half]) + gzip.compress(raw[half:])
    if codec == ".zst":
        return zstandard.compress(raw[:half]) + zstandard.compress(raw[half:])
    return raw


@pytest.mark.parametrize("codec", ["", ".gz", ".zst"])
@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".txt", ".py", ""])
def test_each_kind_is_read_plain_and_compressed(tmp_path: Path, ending: str, codec: str) -> None:
    """Text, code and JSONL give the same documents under each compression."""
    if "n" in ending:
        raw = "".join(json.dumps({"body": text, "id": 1}, ensure_ascii=False) + "\n" for text in TEXTS)
        (tmp_path / f"x{ending}{codec}").write_bytes(compress(raw.encode(), codec))
    else:
        for index, text in enumerate(TEXTS):
            (tmp_path / f"{index}{ending}{codec}").write_bytes(compress(text.encode(), codec))
    assert read(tmp_path, text_key="body") == (TEXTS, Counter())


def test_parquet_is_read_by_row_group(tmp_path: Path) -> None:
    """Parquet gives its text column's documents in order, and its nulls are dropped."""
    path = tmp_path / "x.parquet"
    values = [None if index % 50 == 7 else f"document {index}" for index in range(300)]
    pq.write_table(pa.table({"body": values, "other": [0] * 300}), path, row_group_size=40)
    documents, dropped = read(path, text_key="body")
    assert documents == [value for value in values if value]
    assert dropped == {"'body' is not text": 6}
    with pytest.raises(DataError, match="has no column 'text'; set text_key to one of: body, other"):
        read(path)


def test_every_dropped_document_is_counted_with_its_reason(tmp_path: Path) -> None:
    """Unusable documents are left out and counted; their neighbours are kept."""
    lines = ['{"text": "kept"}', "{", '{"txt": "x"}', "[1]", '{"text": 5}', '{"text": " "}', '{"text": "\\ud800"}', ""]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "blank.txt").write_text(" \n\t")
    (tmp_path / "zero.txt").touch()
    (tmp_path / "zero.txt.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "not.parquet").write_bytes(b"no")
    (tmp_path / "plain.zst").write_bytes(b"not compressed")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.txt")
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % index for index in range(9999)))
    (tmp_path / "torn.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.txt.gz").write_bytes(whole[:10] + b"\xff" * 100)
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden")
    texts, dropped = read(tmp_path)
    assert texts[:2] == ["kept", "0"]
    assert len(texts) > 1000
    assert dropped == {
        "not JSON": 1,
        "no field 'text'": 2,
        "'text' is not text": 1,
        "empty": 4,
        "not Unicode (a lone surrogate)": 1,
        "not UTF-8": 1,
        "unknown ending .png": 1,
        "unreadable: not parquet (ArrowInvalid)": 1,
        "damaged zstd file, read up to the damage": 1,
        "damaged gzip file, read up to the damage": 2,
        "unreadable: No such file or directory": 1,
        "not a regular file": 1,
    }


@pytest.mark.parametrize("codec", ["", ".gz", ".zst"])
def test_json_lines_are_known_by_what_they_hold(tmp_path: Path, codec: str) -> None:
    """C4, Dolma and Dataset.to_json call them `.json`; a document that is one JSON value stays a text."""
    lines = b'{"text": "one", "id": 1}\n{"text": "two", "id": 2}\n'
    for name, data in (
        ("lines", lines),
        ("line", b'{"text": "three"}'),
        ("settings", b'{"a": 1}'),
        ("list", b"[\n 1]"),
    ):
        (tmp_path / f"{name}.json{codec}").write_bytes(compress(data, codec))
    assert sorted(read(tmp_path)[0]) == sorted(["one", "two", "three", '{"a": 1}', "[\n 1]"])


def test_a_text_key_that_no_document_has_is_refused_with_those_there_are(tmp_path: Path) -> None:
    """Beside texts it is only counted: a folder of code may hold a file of records."""
    (tmp_path / "a.jsonl").write_text('{"content": "x", "id": 1}\n')
    with pytest.raises(
        DataError, match=r"sources\.s: no document has the key 'text'; set text_key to one of: 'content', 'id'"
    ):
        read(tmp_path)
    (tmp_path / "a.py").write_text("pass")
    assert read(tmp_path) == (["pass"], Counter({"no field 'text'": 1}))


@pytest.mark.parametrize("checksum", [False, True])
def test_a_zstandard_file_that_is_cut_off_is_counted(tmp_path: Path, checksum: bool) -> None:  # noqa: FBT001
    """Wherever it is cut, but between two frames; what is whole is read."""
    compressor = zstandard.ZstdCompressor(write_checksum=checksum)
    lines = [compressor.compress(b'{"text": "%d"}\n' % number + bytes(40) * 5000) for number in range(2)]
    skippable = (0x184D2A50).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"abcd"
    whole = lines[0] + skippable + lines[1]
    ends = {len(lines[0]), len(lines[0]) + len(skippable), len(whole)}
    damage = "damaged zstd file, read up to the damage"
    for end in range(1, len(whole) + 1):
        (tmp_path / "x.jsonl.zst").write_bytes(whole[:end])
        assert (read(tmp_path)[1][damage] == 0) == (end in ends), end


def test_a_zstandard_file_with_a_long_window_is_read(tmp_path: Path) -> None:
    """As `zstd --long=29` writes it; a longer one than memory allows is counted."""
    for name, log in (("a", 29), ("b", 31)):
        parameters = zstandard.ZstdCompressionParameters(window_log=log, compression_level=1)
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        (tmp_path / f"{name}.txt.zst").write_bytes(packer.compress(name.encode() * 9) + packer.flush())
    assert read(tmp_path) == (["a" * 9], Counter({"damaged zstd file, read up to the damage": 1}))


def test_a_line_with_an_endless_number_is_read(tmp_path: Path) -> None:
    """Python's own limit on digits is none of the text's business."""
    (tmp_path / "x.jsonl").write_text('{"id": ' + "9" * 5000 + ', "text": "kept"}\n')
    assert read(tmp_path) == (["kept"], Counter())


def test_a_parquet_column_of_bytes_is_text_where_it_is_utf8(tmp_path: Path) -> None:
    """So is one of strings: what is no UTF-8 is counted, and its neighbours are kept."""
    for name, kind in (("a", pa.binary()), ("b", pa.string())):
        offsets, data = pa.py_buffer(b"\0\0\0\0\x01\0\0\0\x02\0\0\0"), pa.py_buffer(b"\xff" + name.encode())
        column = pa.Array.from_buffers(kind, 2, [None, offsets, data])
        pq.write_table(pa.table({"text": column}), tmp_path / f"{name}.parquet")
    assert read(tmp_path) == (["a", "b"], Counter({"not UTF-8": 2}))


def test_a_damaged_parquet_file_is_counted_and_its_neighbours_are_read(tmp_path: Path) -> None:
    """Whatever the library raises where damage meets it: in the name of a column, in a page, and in a time."""
    pq.write_table(pa.table({"text": ["a"], "other": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["b" * 999, "c" * 999]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": pa.array([2**62], pa.timestamp("us"))}), tmp_path / "c.parquet")
    raw = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(raw.replace(b"other", b"oth\xffr"))
    raw = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(raw[:20] + b"\xff" * 40 + raw[60:])
    (tmp_path / "d.txt").write_text("d")
    assert read(tmp_path) == (
        ["d"],
        {
            "unreadable: not parquet (UnicodeDecodeError)": 1,
            "damaged parquet file (OSError)": 1,
            "'text' is not text": 1,
        },
    )


def test_a_line_too_long_to_parse_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next line is read."""
    monkeypatch.setattr(documents, "MAX_LINE_BYTES", 100)
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "x" * 350}) + '\n{"text": "next"}\n')
    assert read(tmp_path) == (["next"], Counter({f"line longer than {100 >> 20} MiB": 1}))


@given(st.text(alphabet="ab\né第🙂", max_size=200), st.integers(4, 50))
def test_long_documents_are_split_at_lines(text: str, max_bytes: int) -> None:
    """Pieces join to the document, respect the limit, hold whole characters, and end at a line end if possible."""
    raw = text.encode()
    pieces = list(split_at_lines(io.BytesIO(raw).read, max_bytes))
    assert b"".join(pieces) == raw
    for piece in pieces[:-1]:
        assert 0 < len(piece) <= max_bytes
        piece.decode()
        assert piece.endswith(b"\n") or b"\n" not in piece
    assert len(pieces) <= 1 or 0 < len(pieces[-1]) <= max_bytes


@pytest.mark.parametrize(("name", "newlines"), [("x.txt", 1), ("x.txt", 0), ("x.jsonl", 1)])
def test_large_files_are_split_into_units_without_loss(tmp_path: Path, name: str, newlines: int) -> None:
    """A file of several MiB becomes several units, whose documents are those of the file."""
    lines = [f"{index:07d} {'é' * (index % 90)}" for index in range(40_000)]
    if name == "x.jsonl":
        raw = "".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines)
    else:
        raw = "".join(line + "\n" * newlines for line in lines)
    (tmp_path / name).write_text(raw)
    listing = inventory("s", Source(path=str(tmp_path)), exclude=NOWHERE)
    units, _ = plan_units("s", listing, "text", 100_000)
    assert len(units) == (-(-len(raw.encode()) // (1 << 20)) if newlines else 1)
    assert sum(unit.size for unit in units) == len(raw.encode())
    texts, dropped = read(tmp_path, max_bytes=100_000)
    assert "".join(texts) == "".join(line + "\n" * (newlines and name == "x.txt") for line in lines)
    assert not dropped


def test_a_document_that_is_short_enough_is_never_split(tmp_path: Path) -> None:
    """Documents larger than a unit stay whole too."""
    (tmp_path / "x.txt").write_text("line\n" * 500_000)
    assert [len(text) for text in read(tmp_path, max_bytes=3 << 20)[0]] == [2_500_000]


def test_folders_globs_and_files_name_the_same_documents_everywhere(tmp_path: Path) -> None:
    """Names are relative to the source's root and sorted, and the folder of the shards is not read."""
    for name in ("b/2.txt", "a/1.txt", "a.txt", "built/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listed = inventory("s", Source(path=str(tmp_path)), exclude=(tmp_path / "built").resolve())
    assert names(listed) == ["a.txt", "a/1.txt", "b/2.txt"]
    assert names(inventory("s", Source(path=f"{tmp_path}/*/[12].txt"), exclude=NOWHERE)) == ["a/1.txt", "b/2.txt"]
    deep = inventory("s", Source(path=f"{tmp_path}/**/*.txt"), exclude=(tmp_path / "built").resolve())
    assert names(deep) == ["a.txt", "a/1.txt", "b/2.txt"]
    assert names(inventory("s", Source(path=str(tmp_path / "a/1.txt")), exclude=NOWHERE)) == ["1.txt"]


@pytest.mark.parametrize("pattern", ["", "**/*.txt"])
def test_links_are_followed_and_each_real_file_is_read_once(tmp_path: Path, pattern: str) -> None:
    """Links that lead back, to each other or to the same folder twice end, and what they repeat is counted."""
    root, beside = tmp_path / "in", tmp_path / "beside"
    for path in (root / "a/1.txt", root / "a/2.txt", beside / "3.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (root / "self").symlink_to(root)
    (root / "a/up").symlink_to("..")
    (root / "0.txt").symlink_to(root / "a/1.txt")
    (root / "out").symlink_to(beside)
    (root / "out2").symlink_to(beside)
    (beside / "back").symlink_to(root)
    listing = inventory("s", Source(path=str(root / pattern) if pattern else str(root)), exclude=NOWHERE)
    assert names(listing) == ["a/1.txt", "a/2.txt", "out/3.txt"]
    assert listing.dropped == {"behind a link, and read already": 5}


@pytest.mark.parametrize("pattern", ["x/*.txt", "**/x/*.txt", "*/x/*.txt", "x/**/1.txt"])
def test_a_glob_reads_what_it_matches_behind_links_only(tmp_path: Path, pattern: str) -> None:
    """What a link leads to may lie below the source under a name that does not match: it was not read by that."""
    (tmp_path / "y").mkdir()
    (tmp_path / "y/1.txt").write_text("1")
    (tmp_path / "y/2.md").write_text("2")
    (tmp_path / "y/3.txt").symlink_to("2.md")
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "z").mkdir()
    (tmp_path / "z/x").symlink_to("../y")
    listing = inventory("s", Source(path=f"{tmp_path}/{pattern}"), exclude=NOWHERE)
    read_files = {os.path.realpath(file.path) for file in listing.files}
    expected = glob.glob(f"{tmp_path}/{pattern}", recursive=True)  # noqa: PTH207 - it is what is compared
    assert read_files == {os.path.realpath(path) for path in expected}
    assert len(listing.files) == len(read_files)


@pytest.mark.parametrize("target", ["x" * 300, "/proc/1/cwd/x", "loop", "a\nb", "/dev/null/x"])
def test_a_link_that_leads_nowhere_is_counted(tmp_path: Path, target: str) -> None:
    """Also where the system refuses even to look."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link.txt").symlink_to(target)
    listing = inventory("s", Source(path=str(tmp_path)), exclude=NOWHERE)
    assert (names(listing), listing.total, listing.dropped.total()) == (["a.txt"], 3, 2)


def test_the_reasons_for_files_left_out_have_bounds(tmp_path: Path) -> None:
    """A file's name may end in anything: in a line, in a sentence, or each time in something else."""
    (tmp_path / "a.txt").write_text("a")
    for index in range(300):
        (tmp_path / f"x.q{index}").touch()
    (tmp_path / "x.two\nlines").touch()
    (tmp_path / ("x." + "long" * 50)).touch()
    dropped = inventory("s", Source(path=str(tmp_path)), exclude=NOWHERE).dropped
    assert dropped.total() == 302
    assert len(dropped) <= 65
    assert all(reason.isprintable() and len(reason) < 50 for reason in dropped)


def test_a_folder_that_cannot_be_listed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are read."""
    for name in ("closed/1.txt", "open/2.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = inventory("s", Source(path=str(tmp_path)), exclude=NOWHERE)
    assert (names(listing), listing.dropped) == (["open/2.txt"], {"folder unreadable: Permission denied": 1})


def test_a_name_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    """The file is left out, for no document can hold its name."""
    (tmp_path / os.fsdecode(b"\xff.txt")).write_text("x")
    (tmp_path / "a.txt").write_text("a")
    listing = inventory("s", Source(path=str(tmp_path)), exclude=NOWHERE)
    assert (names(listing), listing.dropped) == (["a.txt"], {"name that is not UTF-8": 1})


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b.txt", ".c", "ab"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["a", "*", "**", "b.*", "?", "[a-b]*", ".*"]), min_size=1, max_size=4),
)
def test_a_glob_matches_what_pythons_does(
    tmp_path_factory: pytest.TempPathFactory, path: list[str], parts: list[str]
) -> None:
    """Tried against a file with that path. Python takes `a/**` for the file `a`, but not `*/**`."""
    assume(parts[-1] != "**" or "a" not in parts)
    root = tmp_path_factory.mktemp("glob")
    file = root.joinpath(*path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    found = glob.glob("/".join(parts), root_dir=root, recursive=True)  # noqa: PTH207 - it is what is compared
    assert matches(path, parts) == ("/".join(path) in {name.rstrip("/") for name in found})


@pytest.mark.parametrize("path", ["nothing", "nothing/*.txt"])
def test_a_path_without_files_is_refused(tmp_path: Path, path: str) -> None:
    """The message names the source and its path; the exit code is 2."""
    with pytest.raises(DataError, match=r"data\.sources\.s: no files at") as caught:
        inventory("s", Source(path=str(tmp_path / path)), exclude=NOWHERE)
    assert caught.value.exit_code == 2


def test_the_standard_library_is_a_source() -> None:
    """`python:stdlib` is the interpreter's own modules, without installed packages."""
    files: Any = set(names(inventory("s", Source(path="python:stdlib"), exclude=NOWHERE)))
    assert {"os.py", "asyncio/events.py"} <= files
    assert not [name for name in files if "site-packages" in name or not name.endswith(".py")]
