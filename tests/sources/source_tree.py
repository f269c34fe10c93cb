"""Trees of files, drawn by Hypothesis: whole, damaged, mislabelled, linked in circles, or not files at all."""

import gzip
import io
import json
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import strategies as st

STORED = Path(__file__).parents[1] / "stored"
ARTIFACTS = {"built": STORED / "data", "run": STORED / "store/runs/stored", "model": STORED / "store/models/keeper"}
"""What Headway makes."""
ENDINGS = {
    "text": (".txt", ".md", "", ".TXT", ".py"),
    "lines": (".jsonl", ".ndjson", ".json"),
    "json": (".json",),
    "rows": (".parquet",),
}
CODECS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda raw: gzip.compress(raw, mtime=0),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
ODD_NAMES = [
    *("a", "b", "c", "x y", "two\nlines", "\x1b[31m", "é", "\udcff", "-", "*", "[a]", "%41", "n" * 200, ".hidden"),
    *("runs", "models", "journal", "shards", "manifest", "plan"),
]
NAMES = st.sampled_from(ODD_NAMES) | st.text("ab.", min_size=1, max_size=3).filter(lambda name: name.strip("."))
FOLDERS = st.lists(NAMES, max_size=3).map("/".join)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["", " \n", "<|endoftext|>", "x\0y", "\ufeffmark", "9" * 5000, "é" * 300, "line\n" * 100]),
)
ODD_LINES = [
    *("", "{", "null", "[1]", "9" * 5000, "\x00", "[" * 100_000, '{"a":' * 5000 + "1", '{"txt": 1}', '{"text": 5}'),
    *('{"text": null}', '{"text": NaN}', '{"text": ["x"]}', '{"text": "\\ud800"}', '{"text": "a", "text": "b"}'),
    *('{"text": "a", "n": %s}' % n for n in ("9" * 6000, "1e999999", "[" * 900 + "]" * 900)),  # noqa: UP031 - braces
]
LINES = st.sampled_from(ODD_LINES) | st.builds(
    lambda text, ascii_only: json.dumps({"text": text}, ensure_ascii=ascii_only), TEXTS, st.booleans()
)
INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)
NESTED = [pa.array([["x"], []], pa.list_(pa.string())), pa.array([{"text": "x"}]), pa.nulls(3)]
COLUMNS = st.one_of(
    st.builds(pa.array, st.lists(TEXTS | st.none(), max_size=6), st.sampled_from([pa.string(), pa.large_string()])),
    st.lists(TEXTS, min_size=1, max_size=6).map(lambda texts: pa.array(texts).dictionary_encode()),
    st.lists(st.binary(max_size=20), max_size=4).map(lambda texts: pa.array(texts, pa.binary())),
    st.builds(pa.array, INTEGERS, st.sampled_from([pa.int64(), pa.timestamp("us"), pa.timestamp("ns", "UTC")])),
    st.sampled_from(NESTED),
)
COLUMN_NAMES = st.sampled_from([("text",)] * 6 + [("other", "text"), ("text", "text"), ("other", "a.text")])


def rows(column: pa.Array, names: tuple[str, ...], group: int) -> bytes:
    """A parquet file."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([column] * len(names), list(names)), sink, row_group_size=group)
    return sink.getvalue()


JSON = st.recursive(
    st.none() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
CONTENTS: dict[str, st.SearchStrategy[bytes]] = {
    "text": TEXTS.map(str.encode),
    "lines": st.lists(LINES, min_size=1, max_size=6).map(lambda lines: "\n".join(lines).encode()),
    "json": JSON.map(lambda value: json.dumps(value, indent=1).encode()),
    "rows": st.builds(rows, COLUMNS, COLUMN_NAMES, st.integers(1, 4)),
}
PLACES = st.floats(0, 1, allow_nan=False)
FLIPS = st.lists(st.tuples(PLACES, st.integers(0, 7)), min_size=1, max_size=3)
Change = Callable[[bytes], bytes]
DAMAGES: st.SearchStrategy[Change] = st.one_of(
    st.just(bytes),
    st.just(bytes),
    PLACES.map(lambda place: lambda raw: raw[: int(place * len(raw))]),
    PLACES.map(lambda place: lambda raw: raw[: int(place * len(raw))] + b"\0\0" + raw[int(place * len(raw)) :]),
    FLIPS.map(lambda flips: lambda raw: flip(raw, flips)),
    st.binary(max_size=20).map(lambda junk: lambda raw: raw + junk),
    st.just(lambda raw: raw.decode(errors="replace").encode("utf-16")),
    st.just(lambda raw: b"\xef\xbb\xbf" + raw),
    st.just(lambda raw: raw[: len(raw) // 2] + bytes(len(raw) - len(raw) // 2)),
)


def flip(raw: bytes, flips: list[tuple[float, int]]) -> bytes:
    """Some bits of it changed."""
    data = bytearray(raw)
    for place, bit in flips:
        if data:
            data[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
    return bytes(data)


@dataclass(frozen=True)
class Planted:
    """One thing in a tree.

    Attributes:
        kind: `file`, `link`, `pipe`, `socket`, `device`, `folder`, `closed`, or one of `ARTIFACTS`.
        content: the bytes of a file, or where a link leads; `{root}` is the tree, `{beside}` a folder beside it.
    """

    folder: str
    name: str
    kind: str
    content: bytes | str = b""


@st.composite
def files(draw: st.DrawFn) -> Planted:
    """A file: of a kind, packed, damaged before and after that, and called like its kind or like another one."""
    kind, codec = draw(st.sampled_from([*CONTENTS])), draw(st.sampled_from(["", "", *CODECS]))
    raw = draw(DAMAGES)(CODECS[codec](draw(DAMAGES)(draw(CONTENTS[kind]))))
    label = draw(st.sampled_from([kind] * 6 + [*ENDINGS]))
    ending = draw(st.sampled_from(ENDINGS[label])) + draw(
        st.sampled_from([codec] * 6 + [*CODECS, ".png", ".two\nlines"])
    )
    return Planted(draw(FOLDERS), draw(NAMES) + ending, draw(st.sampled_from(["file"] * 9 + ["closed"])), raw)


TARGETS = [
    *("{root}", "..", ".", "../..", "{beside}", "{beside}/sub", "{beside}/sub/t.txt", "{beside}/t.jsonl", "{built}"),
    *("{root}/d/1.txt", "{root}/d/2.txt", "{root}/d"),
    *("nowhere", "n" * 300, "a\nb", "a.txt", "/dev/zero", "/dev/full", "/proc/self/mem", "/proc/1/cwd/x"),
]
LINKS = st.builds(
    Planted,
    FOLDERS,
    NAMES | NAMES.map(lambda name: f"{name}.txt"),
    st.just("link"),
    st.sampled_from(TARGETS) | st.builds(lambda folder, name: "{root}/" + f"{folder}/{name}", FOLDERS, NAMES),
)
SPECIAL = ["pipe", "socket", "device"]
OTHERS = st.builds(Planted, FOLDERS, NAMES, st.sampled_from([*SPECIAL, "folder", *ARTIFACTS])) | st.builds(
    Planted, FOLDERS, NAMES.map(lambda name: f"{name}.txt"), st.sampled_from(SPECIAL)
)
TREES = st.lists(st.one_of(files(), files(), LINKS, OTHERS), min_size=2, max_size=10)


def plant(tree: list[Planted], root: Path) -> None:
    """Make a tree, beside what is always there. What a name cannot be made of, or is taken, is left out."""
    beside = root.parent / "beside"
    (beside / "sub").mkdir(parents=True)
    (beside / "sub" / "t.txt").write_text("beside, in sub")
    (beside / "t.jsonl").write_text('{"text": "beside"}\n')
    shutil.copytree(STORED / "data", beside / "moved")
    places = {"root": str(root), "beside": str(beside), "built": str(beside / "moved")}
    for each in tree:
        with suppress(OSError):
            folder = root / each.folder
            folder.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(folder / each.name):
                _make(each, folder / each.name, places)


def _make(each: Planted, path: Path, places: dict[str, str]) -> None:
    match each.kind:
        case "file" | "closed":
            assert isinstance(each.content, bytes)
            path.write_bytes(each.content)
            path.chmod(0 if each.kind == "closed" else 0o644)
        case "link":
            assert isinstance(each.content, str)
            target = each.content
            for key, place in places.items():
                target = target.replace("{" + key + "}", place)
            path.symlink_to(target)
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        case "device":
            os.mknod(path, 0o20644, os.makedev(1, 5))  # as root only: /dev/zero
        case "folder":
            path.mkdir()
        case kind:
            shutil.copytree(ARTIFACTS[kind], path)
