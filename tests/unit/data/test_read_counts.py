"""The sums of a build: whatever a source holds is kept, or counted by the reason why it is not."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.data.conftest import Recipes, prose, write_lines

from headway.data import build_worker
from headway.data.build import build
from headway.data.build_worker import _batches
from headway.data.documents import read_documents
from headway.errors import HeadwayError


def test_all_of_a_source_is_kept_or_left_out(recipes: Recipes, tmp_path: Path) -> None:
    """Files, documents and bytes of text, each by its reasons; what is left out before it is read is no file read."""
    folder = tmp_path / "in"
    write_lines(folder / "a.jsonl", [prose(seed, 600) for seed in range(60)] + [" " * 7])
    (folder / "b.txt").write_bytes(b"\xff" * 9)
    (folder / "blank.jsonl").write_text("\n \n")
    (folder / "c.parquet").write_bytes(b"no")
    (folder / "d.png").write_bytes(b"x")
    (folder / "e.txt").symlink_to("b.txt")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "no_rows.parquet")
    pq.ParquetWriter(folder / "no_groups.parquet", pa.schema([("text", pa.string())])).close()
    pq.write_table(pa.table({"text": pa.array([2**62, None], pa.timestamp("us"))}), folder / "times.parquet")
    source = build(recipes({"s": folder}), workers=1).sources["s"]
    assert source.input
    assert (source.files, source.input.files) == (6, 9)
    assert source.input.files_left_out == {
        "behind a link, and read already": 1,
        "unknown ending .png": 1,
        "unreadable: not parquet (ArrowInvalid)": 1,
    }
    assert source.bytes == sum((folder / name).stat().st_size for name in (
        "a.jsonl", "b.txt", "blank.jsonl", "no_groups.parquet", "no_rows.parquet", "times.parquet"
    ))  # fmt: skip
    assert (source.documents + source.held_out_documents, source.input.documents) == (60, 67)
    assert source.input.documents_left_out == {"'text' is not text": 2, "empty": 4, "not UTF-8": 1}
    text = sum(len(prose(seed, 600)) for seed in range(60))
    assert (source.input.text_bytes, source.input.text_bytes_kept) == (text + 16, text)
    assert source.input.text_bytes_left_out == 16
    assert source.dropped == dict(
        sorted([*source.input.files_left_out.items(), *source.input.documents_left_out.items()])
    )


@pytest.mark.parametrize("loss", ["writing", "reading"])
def test_a_build_that_loses_documents_stops(
    recipes: Recipes, corpus: dict[str, Path], monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Whichever part of Headway loses them: what was read is compared with what was written."""
    if loss == "writing":
        monkeypatch.setattr(build_worker, "_batches", lambda each: (batch[1:] for batch in _batches(each)))
    else:

        def skip(span: Any, *rest: Any) -> Any:
            rest[-1].documents += 1
            return read_documents(span, *rest)

        monkeypatch.setattr(build_worker, "read_documents", skip)
    with pytest.raises(HeadwayError, match=r"sums of the build do not close \(large: .* fault of Headway"):
        build(recipes(corpus), workers=1)
