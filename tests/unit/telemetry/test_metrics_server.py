"""`/metrics` is served on a port, announced in a target file, and closed at the end."""

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.errors import UsageError
from headway.telemetry import metrics_server
from headway.telemetry.metrics_server import OWNER_LABEL, MetricsConfig, MetricsServer, metrics_config, remove_target
from headway.telemetry.training_metrics import TrainingMetrics

TIMEOUT = 30.0
"""Limit against hanging [s]."""


@pytest.fixture(autouse=True)
def no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without metrics."""
    for name in (metrics_server.PORT_VARIABLE, metrics_server.TARGETS_VARIABLE, metrics_server.LINGER_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MetricsServer]:
    """Metrics of a training process, on a free port, with a target folder that does not exist yet."""
    config = MetricsConfig(address="127.0.0.1", targets=str(tmp_path / "targets"))
    server = MetricsServer(config, TrainingMetrics().registry, "slm.seed-1", "launch-1")
    assert server.await_port(TIMEOUT)
    yield server
    server.close()


def scrape(port: int | None, accept: str) -> tuple[str, str]:
    """Content type and text of a scrape."""
    assert port
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as connection:
        connection.request("GET", "/metrics", headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.headers["Content-Type"], answer.read().decode()


def target_file(server: MetricsServer) -> Path:
    """The target file of a server."""
    assert server.config.targets
    return Path(server.config.targets, f"{server.name}.json")


def test_metrics_are_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset."""
    assert metrics_config() is None
    monkeypatch.setenv(metrics_server.PORT_VARIABLE, "")
    assert metrics_config("") is None


@pytest.mark.parametrize(
    ("option", "port", "address"),
    [("9464", 9464, "0.0.0.0"), ("0", 0, "0.0.0.0"), ("127.0.0.1:9464", 9464, "127.0.0.1"), ("[::1]:80", 80, "::1")],  # noqa: S104 - the default address
)
def test_a_port_and_an_address_are_parsed(option: str, port: int, address: str) -> None:
    """The default is all addresses of the machine, without lingering."""
    assert metrics_config(option) == MetricsConfig(port, address, None, 0.0)


def test_a_target_folder_implies_any_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It implies lingering for two scrapes, unless the variable sets another time."""
    monkeypatch.setenv(metrics_server.TARGETS_VARIABLE, str(tmp_path))
    assert metrics_config() == MetricsConfig(targets=str(tmp_path), linger=metrics_server.LINGER_SECONDS)
    monkeypatch.setenv(metrics_server.LINGER_VARIABLE, "5")
    monkeypatch.setenv(metrics_server.PORT_VARIABLE, "9464")
    assert metrics_config() == MetricsConfig(9464, targets=str(tmp_path), linger=5.0)
    assert metrics_config("9465") == MetricsConfig(9465, targets=str(tmp_path), linger=5.0)


@pytest.mark.parametrize("option", ["", "port", "-1", "65536", "host:", "1.5"])
def test_an_invalid_port_is_refused(option: str) -> None:
    """The message shows the format."""
    with pytest.raises(UsageError, match="PORT or ADDRESS:PORT"):
        metrics_config(option or ":")


@pytest.mark.parametrize("seconds", ["long", "-1", "inf", "nan"])
def test_an_invalid_linger_time_is_refused(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    """The message states what is valid."""
    monkeypatch.setenv(metrics_server.LINGER_VARIABLE, seconds)
    with pytest.raises(UsageError, match="must be seconds >= 0"):
        metrics_config("0")


def test_metrics_are_served_in_the_requested_format(server: MetricsServer) -> None:
    """Both OpenMetrics, which has exemplars, and the older text format are served."""
    kind, text = scrape(server.port, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    kind, text = scrape(server.port, "text/plain")
    assert kind.startswith("text/plain")
    assert 'headway_checkpoint_saves_total{outcome="failed"} 0.0\n' in text


def test_prometheus_finds_the_port_by_a_file(server: MetricsServer) -> None:
    """The file has the format of `file_sd_configs` and the labels of the last announcement."""
    assert not target_file(server).exists(), "the labels are not known yet"
    server.announce(run="slm.seed-1", attempt="1")
    server.announce(run="slm.seed-1", attempt="5")
    (target,) = json.loads(target_file(server).read_text(encoding="utf-8"))
    assert target["targets"] == [f"{socket.gethostname()}:{server.port}"]
    assert target["labels"] == {"run": "slm.seed-1", "attempt": "5", OWNER_LABEL: "launch-1"}
    assert [each.name for each in target_file(server).parent.iterdir()] == ["slm.seed-1.json"]


def test_an_early_announcement_is_written_once_the_port_is_open(tmp_path: Path) -> None:
    """`announce` does not wait for the port."""
    server = MetricsServer(
        MetricsConfig(address="127.0.0.1", targets=str(tmp_path)), TrainingMetrics().registry, "run", "launch-1"
    )
    server.announce(run="run")
    port = server.await_port(TIMEOUT)
    assert json.loads((tmp_path / "run.json").read_text())[0]["targets"] == [f"{socket.gethostname()}:{port}"]
    server.close()


def test_closing_removes_file_and_port(server: MetricsServer) -> None:
    """A later announcement does not bring them back."""
    server.announce(run="slm.seed-1")
    port = server.port
    server.close()
    assert not target_file(server).exists()
    with pytest.raises(ConnectionRefusedError):
        scrape(port, "text/plain")
    server.announce(run="slm.seed-1")
    assert not target_file(server).exists()
    server.close()


def test_the_file_of_a_newer_process_stays(server: MetricsServer) -> None:
    """Only the owner of the file removes it."""
    server.announce(run="slm.seed-1")
    remove_target(server.config, server.name, "launch-0")
    assert target_file(server).exists()
    remove_target(server.config, server.name, "launch-1")
    assert not target_file(server).exists()
    target_file(server).write_text("rubbish", encoding="utf-8")
    remove_target(server.config, server.name, "launch-1")
    assert target_file(server).exists(), "not ours"
    remove_target(None, server.name, "launch-1")


def test_a_foreign_file_in_the_folder_of_targets_holds_nobody_up(server: MetricsServer) -> None:
    """One that is too deep or too long stays where it is, and so does a pipe that nobody writes."""
    path = target_file(server)
    server.announce(run="slm.seed-1")
    path.write_text("[" * 200_000, encoding="utf-8")
    remove_target(server.config, server.name, "launch-1")
    with path.open("wb") as file:
        file.truncate(50 * 10**9)
    remove_target(server.config, server.name, "launch-1")
    path.unlink()
    os.mkfifo(path)
    remove_target(server.config, server.name, "launch-1")
    assert path.is_fifo()
    path.unlink()


def test_an_occupied_port_is_a_warning(server: MetricsServer, caplog: pytest.LogCaptureFixture) -> None:
    """The process goes on without metrics."""
    assert server.port
    second = MetricsServer(MetricsConfig(server.port, "127.0.0.1"), TrainingMetrics().registry, "run", "launch-2")
    assert second.await_port(TIMEOUT) is None
    second.announce(run="run")
    second.linger(TIMEOUT)  # returns at once: no port is open
    second.close()
    assert f"no metrics: 127.0.0.1:{server.port}" in caplog.text


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Metrics are still served."""
    (tmp_path / "file").touch()
    config = MetricsConfig(address="127.0.0.1", targets=str(tmp_path / "file" / "targets"))
    server = MetricsServer(config, TrainingMetrics().registry, "run", "launch-1")
    server.announce(run="run")
    assert scrape(server.await_port(TIMEOUT), "text/plain")
    assert "Prometheus cannot find these metrics" in caplog.text
    server.close()


def test_the_port_lingers_for_a_time(server: MetricsServer) -> None:
    """Lingering ends after its time, or once `leave` returns true."""
    began = time.monotonic()
    server.linger(0.2)
    assert time.monotonic() - began >= 0.2
    server.linger(-1.0)
    leave = threading.Event()
    lingering = threading.Thread(target=server.linger, args=(TIMEOUT, leave.is_set))
    lingering.start()
    leave.set()
    lingering.join(TIMEOUT / 2)
    assert not lingering.is_alive()
