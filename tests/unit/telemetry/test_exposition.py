"""`/metrics`: shown on a port, found through a file, and gone at the end."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.errors import UsageError
from headway.telemetry import exposition
from headway.telemetry.exposition import OWNER, Exposition, Exposure, exposure_from_environment, withdraw
from headway.telemetry.metrics import TrainingMetrics

PATIENCE = 30.0
"""A bound for what hangs, not a measure [s]."""


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without metrics."""
    for name in (exposition.PORT_VARIABLE, exposition.TARGETS_VARIABLE, exposition.LINGER_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Exposition]:
    """Metrics of a training process, on a free port, with a folder for targets that is not there yet."""
    exposure = Exposure(address="127.0.0.1", targets=str(tmp_path / "targets"))
    made = Exposition(exposure, TrainingMetrics().registry, "slm.seed-1", "launch-1")
    assert made.await_port(PATIENCE)
    yield made
    made.close()


def scraped(port: int | None, accept: str) -> tuple[str, str]:
    """What Prometheus gets: the type of the answer, and its text."""
    assert port
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/metrics", headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.headers["Content-Type"], answer.read().decode()


def file_of(shown: Exposition) -> Path:
    """The file of its target."""
    assert shown.exposure.targets
    return Path(shown.exposure.targets, f"{shown.name}.json")


def test_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there are none; an empty variable asks for nothing."""
    assert exposure_from_environment() is None
    monkeypatch.setenv(exposition.PORT_VARIABLE, "")
    assert exposure_from_environment("") is None


@pytest.mark.parametrize(
    ("option", "port", "address"),
    [("9464", 9464, "0.0.0.0"), ("0", 0, "0.0.0.0"), ("127.0.0.1:9464", 9464, "127.0.0.1"), ("[::1]:80", 80, "::1")],  # noqa: S104 - what is asked for
)
def test_a_port_is_asked_for(option: str, port: int, address: str) -> None:
    """On all addresses of the machine, or on one; they leave with the process where nobody is told of them."""
    assert exposure_from_environment(option) == Exposure(port, address, None, 0.0)


def test_a_folder_for_targets_asks_for_any_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And for two scrapes more at the end, or as long as is said."""
    monkeypatch.setenv(exposition.TARGETS_VARIABLE, str(tmp_path))
    assert exposure_from_environment() == Exposure(targets=str(tmp_path), linger=exposition.LINGER_SECONDS)
    monkeypatch.setenv(exposition.LINGER_VARIABLE, "5")
    monkeypatch.setenv(exposition.PORT_VARIABLE, "9464")
    assert exposure_from_environment() == Exposure(9464, targets=str(tmp_path), linger=5.0)
    assert exposure_from_environment("9465") == Exposure(9465, targets=str(tmp_path), linger=5.0)


@pytest.mark.parametrize("option", ["", "port", "-1", "65536", "host:", "1.5"])
def test_what_is_no_port_is_refused(option: str) -> None:
    """With what would be one."""
    with pytest.raises(UsageError, match="PORT or ADDRESS:PORT"):
        exposure_from_environment(option or ":")


@pytest.mark.parametrize("seconds", ["long", "-1", "inf", "nan"])
def test_what_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    """Not taken for some other time."""
    monkeypatch.setenv(exposition.LINGER_VARIABLE, seconds)
    with pytest.raises(UsageError, match="no number of seconds"):
        exposure_from_environment("0")


def test_metrics_are_shown_in_the_form_that_is_asked_for(shown: Exposition) -> None:
    """OpenMetrics, which has exemplars, for a Prometheus that knows it."""
    kind, text = scraped(shown.port, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    kind, text = scraped(shown.port, "text/plain")
    assert kind.startswith("text/plain")
    assert 'headway_checkpoint_saves_total{outcome="failed"} 0.0\n' in text


def test_prometheus_finds_the_port_by_a_file(shown: Exposition) -> None:
    """As `file_sd_configs` wants it, under the labels that were given, and written anew for others."""
    assert not file_of(shown).exists(), "nothing is known yet of whose they are"
    shown.announce(run="slm.seed-1", attempt="1")
    shown.announce(run="slm.seed-1", attempt="5")
    (target,) = json.loads(file_of(shown).read_text(encoding="utf-8"))
    assert target["targets"] == [f"{socket.gethostname()}:{shown.port}"]
    assert target["labels"] == {"run": "slm.seed-1", "attempt": "5", OWNER: "launch-1"}
    assert [each.name for each in file_of(shown).parent.iterdir()] == ["slm.seed-1.json"]


def test_what_is_announced_early_is_written_once_there_is_a_port(tmp_path: Path) -> None:
    """Nothing waits for the port."""
    made = Exposition(
        Exposure(address="127.0.0.1", targets=str(tmp_path)), TrainingMetrics().registry, "run", "launch-1"
    )
    made.announce(run="run")
    port = made.await_port(PATIENCE)
    assert json.loads((tmp_path / "run.json").read_text())[0]["targets"] == [f"{socket.gethostname()}:{port}"]
    made.close()


def test_at_the_end_all_is_gone(shown: Exposition) -> None:
    """The file first, then the port; nothing that comes later brings them back."""
    shown.announce(run="slm.seed-1")
    port = shown.port
    shown.close()
    assert not file_of(shown).exists()
    with pytest.raises(ConnectionRefusedError):
        scraped(port, "text/plain")
    shown.announce(run="slm.seed-1")
    assert not file_of(shown).exists()
    shown.close()


def test_the_file_of_a_newer_process_stays(shown: Exposition) -> None:
    """Whoever was fenced off takes away what is its own only; so does a launcher after a rank that was killed."""
    shown.announce(run="slm.seed-1")
    withdraw(shown.exposure, shown.name, "launch-0")
    assert file_of(shown).exists()
    withdraw(shown.exposure, shown.name, "launch-1")
    assert not file_of(shown).exists()
    file_of(shown).write_text("rubbish", encoding="utf-8")
    withdraw(shown.exposure, shown.name, "launch-1")
    assert file_of(shown).exists(), "not ours"
    withdraw(None, shown.name, "launch-1")


def test_a_port_that_is_taken_is_a_warning(shown: Exposition, caplog: pytest.LogCaptureFixture) -> None:
    """Work goes on unseen."""
    assert shown.port
    second = Exposition(Exposure(shown.port, "127.0.0.1"), TrainingMetrics().registry, "run", "launch-2")
    assert second.await_port(PATIENCE) is None
    second.announce(run="run")
    second.linger(PATIENCE)  # for what? nobody sees it
    second.close()
    assert f"no metrics: 127.0.0.1:{shown.port}" in caplog.text


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The port is there all the same."""
    (tmp_path / "file").touch()
    exposure = Exposure(address="127.0.0.1", targets=str(tmp_path / "file" / "targets"))
    made = Exposition(exposure, TrainingMetrics().registry, "run", "launch-1")
    made.announce(run="run")
    assert scraped(made.await_port(PATIENCE), "text/plain")
    assert "Prometheus is not told" in caplog.text
    made.close()


def test_the_last_figures_stay_as_long_as_there_is_time(shown: Exposition) -> None:
    """Until it is over, or somebody is in a hurry."""
    began = time.monotonic()
    shown.linger(0.2)
    assert time.monotonic() - began >= 0.2
    shown.linger(-1.0)
    hurry = threading.Event()
    staying = threading.Thread(target=shown.linger, args=(PATIENCE, hurry.is_set))
    staying.start()
    hurry.set()
    staying.join(PATIENCE / 2)
    assert not staying.is_alive()
