"""A model's folder may hold nothing that runs code when it is loaded."""

import pickle
from pathlib import Path

import pytest
from tests.memory import MemoryStore
from tests.unit.registry.conftest import origin

from headway.errors import UsageError
from headway.registry import RegisteredModel


def refusal(folder: Path) -> str:
    """The error of publishing a folder; checks that nothing was written."""
    store = MemoryStore()
    with pytest.raises(UsageError) as caught:
        RegisteredModel(store, "coder").publish(folder, origin(), dtype="float32")
    assert store.objects == {}
    return str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "optimizer.PTH", "x.pkl", "vocab.npy", "a.ckpt"])
def test_a_pickle_is_refused_by_name(folder: Path, name: str) -> None:
    """Each suffix of a pickle format is refused."""
    (folder / name).write_bytes(pickle.dumps({}))
    assert f"{name} may be a pickle, which runs code when it is loaded" in refusal(folder)


@pytest.mark.parametrize("name", ["modeling_llama.py", ".gitattributes", "run.sh", "manifest.json", "LICENSE"])
def test_a_file_that_no_model_has_is_refused(folder: Path, name: str) -> None:
    """Code, hidden files, and the registry's reserved name are refused."""
    (folder / name).write_text("x")
    assert name in refusal(folder)


@pytest.mark.parametrize(
    "data",
    [pickle.dumps({"w": [1.0] * 100}), b"", b"PK\x03\x04" + bytes(100), (2).to_bytes(8, "little") + b"{}more"],
)
def test_a_pickle_that_is_called_safetensors_is_refused(folder: Path, data: bytes) -> None:
    """The content counts, not the name: a JSON header, then exactly its tensors."""
    (folder / "model.safetensors").write_bytes(data)
    assert "is not a safetensors file" in refusal(folder)


def test_a_folder_inside_is_refused(folder: Path) -> None:
    """A model has no subfolders."""
    (folder / "more.json").mkdir()
    assert "more.json is not a file" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_is_refused(folder: Path, name: str) -> None:
    """Weights and their configuration belong together."""
    (folder / name).unlink()
    assert "holds no model" in refusal(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """The message names the folder."""
    assert "nowhere is not a folder" in refusal(tmp_path / "nowhere")
