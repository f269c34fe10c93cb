"""A place to train in, its data built once a session, and the fingerprint that every history must end in."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest
import yaml

from tests.engines.s3.server import S3Server
from tests.integration.training import DEADLINE, Place, prepare


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny recipe and its data."""
    folder = tmp_path_factory.mktemp("tiny")
    prepare(folder, "tiny")
    return folder


@pytest.fixture
def place(built: Path, tmp_path: Path) -> Place:
    """A place of the test's own, on data that all share."""
    return Place(built / "tiny.yaml", tmp_path / "store")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; this process and those it starts find it by their environment."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def s3_place(built: Path, tmp_path: Path, s3: S3Server) -> Place:
    """A place whose store is on the S3 server."""
    return Place(built / "tiny.yaml", tmp_path, url=f"{s3.url}/{tmp_path.name}")


@pytest.fixture
def own_data(built: Path, tmp_path: Path) -> Place:
    """A place whose data the test may damage."""
    copytree(built / "data", tmp_path / "data")
    document = yaml.safe_load((built / "tiny.yaml").read_text(encoding="utf-8"))
    document["data"]["path"] = str(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return Place(tmp_path / "tiny.yaml", tmp_path / "store")


@pytest.fixture(scope="session")
def unkilled(built: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The fingerprint of the run that nobody killed, on one rank."""
    place = Place(built / "tiny.yaml", tmp_path_factory.mktemp("unkilled"))
    assert place.train("unkilled").process.returncode == 0
    return place.fingerprint("unkilled")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, exported; the store with its run `served` lies beside it."""
    folder = tmp_path_factory.mktemp("served")
    place = Place(prepare(folder, "served"), folder / "store")
    assert place.train("served").process.returncode == 0
    command = [sys.executable, "-m", "headway.cli", "export", "served", "--to", str(folder / "model")]
    subprocess.run([*command, "--store", str(place.store)], check=True, timeout=DEADLINE)
    return folder / "model"
