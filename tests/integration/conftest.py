"""A place to train in, its data built once a session, and the fingerprint that every history must end in."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import yaml

from tests.conftest import group
from tests.engines.s3.server import S3Server
from tests.integration.serving import POOL, QUEUE, STREAMS, Limited, Served, Tenants
from tests.integration.site import LONG
from tests.integration.training import DEADLINE, Place, prepare


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the service that a group of tests shares, with the last of them."""
    if nextitem is None or group(nextitem) != group(item):
        POOL.close()


Shared = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Makes a folder once for all workers of the session: whoever needs it first fills it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, complete = root / name, root / f"{name}.complete"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not complete.exists():
                rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                complete.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def built(shared: Shared) -> Path:
    """A folder with the tiny recipe and its data."""
    return shared("tiny", lambda folder: prepare(folder, "tiny"))


@pytest.fixture
def place(built: Path, tmp_path: Path) -> Place:
    """A place of the test's own, on data that all share."""
    return Place(built / "tiny.yaml", tmp_path / "runs 100% ü?#")  # a path that a URL has to quote


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
def unkilled(built: Path, shared: Shared) -> str:
    """The fingerprint of the run that nobody killed, on one rank."""

    def train(folder: Path) -> None:
        assert Place(built / "tiny.yaml", folder).train("unkilled").process.returncode == 0

    return Place(built / "tiny.yaml", shared("unkilled", train)).fingerprint("unkilled")


@pytest.fixture(scope="session")
def uninterrupted(built: Path, shared: Shared) -> str:
    """The fingerprint of the longer run that nothing happened to, trained without SLURM."""

    def train(folder: Path) -> None:
        assert Place(built / "tiny.yaml", folder).train("long", *LONG).process.returncode == 0

    return Place(built / "tiny.yaml", shared("long", train)).fingerprint("long")


@pytest.fixture(scope="session")
def exported(shared: Shared) -> Path:
    """A trained model, exported; the store with its run `served` lies beside it."""

    def export(folder: Path) -> None:
        place = Place(prepare(folder, "served"), folder / "store")
        assert place.train("served").process.returncode == 0
        command = [sys.executable, "-m", "headway.cli", "export", "served", "--to", str(folder / "model")]
        subprocess.run([*command, "--store", str(place.store)], check=True, timeout=DEADLINE)

    return shared("served", export) / "model"


TEMPLATE = """\
{%- for message in messages %}# {{ message['role'] }}: {{ message['content'] }}
{% endfor %}{% if add_generation_prompt %}# assistant: {% endif %}"""


@pytest.fixture
def service(exported: Path, shared: Shared) -> Served:
    """A service of a model that can chat, without options; the tests of the group `service` share it."""

    def add_template(folder: Path) -> None:
        copytree(exported, folder, dirs_exist_ok=True)
        (folder / "chat_template.jinja").write_text(TEMPLATE)

    return POOL.service(shared("chat", add_template))


@pytest.fixture(scope="session")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Tenants:
    """The keys of the limited service."""
    return Tenants(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture
def limited(exported: Path, tenants: Tenants) -> Limited:
    """A service with few places, for tenants only; the tests of the group `limits` share it."""
    options = ("--streams", str(STREAMS), "--queue", str(QUEUE), "--body-mib", "1")
    return Limited(POOL.service(exported, "--keys", str(tenants.path), *options), tenants)
