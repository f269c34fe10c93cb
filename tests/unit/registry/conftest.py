"""An exported model's folder, and stores to publish it in: a folder and a real S3 server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from tests.engines.s3.server import S3Server

from headway.objectstore import Store, open_store
from headway.registry import Origin, RegisteredModel, Version

Publish = Callable[..., Version]


def safetensors(data: bytes) -> bytes:
    """A file of one tensor."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + data


def origin(tokens: int = 1000) -> Origin:
    """The origin of a model, at a token position."""
    return Origin(
        run="tale", tokens=tokens, checkpoint=f"m{tokens}", sha256="0" * 64, recipe="r", data="d", headway="0"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder: weights, configuration, tokenizer, card."""
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(safetensors(bytes(range(256)) * 64))
    (folder / "config.json").write_text('{"model_type": "llama"}\n')
    (folder / "tokenizer.json").write_text('{"model": {}}\n')
    (folder / "README.md").write_text("# tale\n")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; this process's environment points at it."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of each kind, and an empty cache."""
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "cache"))
    if request.param == "file":
        return open_store(str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("server")
    return open_store(f"{server.url}/{uuid4().hex}")


@pytest.fixture
def model(store: Store) -> RegisteredModel:
    """A model that has no version yet."""
    return RegisteredModel(store, "coder")


@pytest.fixture
def publish(model: RegisteredModel, folder: Path) -> Publish:
    """Publishes the folder, `publish(tokens=1000)`, as a new process does."""

    def call(tokens: int = 1000) -> Version:
        return RegisteredModel(model.store, model.name).publish(folder, origin(tokens), dtype="float32")

    return call
