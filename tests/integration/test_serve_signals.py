"""A service that is asked to stop at any moment, or loses any of its processes, leaves nothing and says how it ended.

HEADWAY_SERVE_POINTS sets the number of signals, of all 60; HEADWAY_SERVE_KILLS how many services lose processes;
HEADWAY_SERVE_SEED draws another selection.
"""

import itertools
import os
import random
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from headway.temporary_folder import delete_dead_folders
from tests.integration.serving import ASK, Served, title
from tests.integration.test_signals import session
from tests.integration.training import DEADLINE, until

pytestmark = [pytest.mark.slow, pytest.mark.spread]
SEED = int(os.environ.get("HEADWAY_SERVE_SEED", "20261127"))
POINTS = int(os.environ.get("HEADWAY_SERVE_POINTS", "8"))
KILLS = int(os.environ.get("HEADWAY_SERVE_KILLS", "4"))
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")
TARGETS = ("process", "group")
START_PARTS = 7
START_SECONDS = 14.0
"""How long a start takes, or a bit longer [s]."""
MOMENTS = (*(f"start {part}" for part in range(START_PARTS)), "idle", "busy", "end")
TOKENS = 300
"""Length of a stream that is in flight when a signal comes."""
GRACE_SECONDS = 30.0
"""How long an idle service may take to end: what Kubernetes allows by default [s]."""
FATAL = ("replica", "raylet", "gcs_server", "node", "service")
"""Processes without which a service ends: with code 1, or, if it is the service itself, from the signal."""
EXPENDABLE = ("engine", "forkserver", "proxy", "controller", "other")
"""Processes without which it goes on."""
WORDS = {
    "engine": "EngineCore",
    "forkserver": "multiprocessing.forkserver",
    "replica": "ServeReplica",
    "proxy": "ProxyActor",
    "controller": "ServeController",
    "node": "headway.serve.process",
    "raylet": "raylet/raylet",
    "gcs_server": "gcs_server",
}
"""What is in the title of each process."""


def drawn(number: int) -> list[tuple[str, str, str]]:
    """So many of the 60 points; a third of them at the end of the list of moments."""
    dice, points = random.Random(SEED), list(itertools.product(SIGNALS, TARGETS, MOMENTS))
    dice.shuffle(points)
    starts = [point for point in points if point[2].startswith("start")]
    others = [point for point in points if not point[2].startswith("start")]
    return [others.pop() if (place % 3 == 2 and others) or not starts else starts.pop() for place in range(number)]


def kills(number: int) -> list[tuple[str, str]]:
    """So many services that lose a process which they can spare, and then one which they cannot."""
    dice = random.Random(SEED)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < number:
        fatal, expendable = list(FATAL), list(EXPENDABLE)
        dice.shuffle(fatal)
        dice.shuffle(expendable)
        pairs += zip(expendable, fatal, strict=True)
    return pairs[:number]


def processes(served: Served) -> dict[str, list[psutil.Process]]:
    """All processes of a service by what they are."""
    members: dict[str, list[psutil.Process]] = {}
    below: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        below = psutil.Process(served.process.pid).children(recursive=True)
    for member in below:
        kind = next((kind for kind, word in WORDS.items() if word in title(member)), "other")
        members.setdefault(kind, []).append(member)
    return members


def left(served: Served) -> list[psutil.Process]:
    """The processes of a service that are still there, by its session and by its temporary folder."""
    members = {psutil.Process(number) for number in session(served.process.pid)}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR", "").startswith(str(served.temporary)) and process.is_running():
                members.add(process)
    return [each for each in members if each.pid != served.process.pid]


def check_end(served: Served) -> None:
    """Nothing is left: no process, no file, and the port is free."""
    until(lambda: not left(served), lambda: f"left: {[title(each) for each in left(served)]}\n{served.log}")
    assert not list(served.temporary.iterdir())
    with socket.socket() as successor:
        successor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        successor.bind(("127.0.0.1", served.port))


def send(served: Served, number: int, target: str) -> None:
    """Signal a service, or the process group of it."""
    if served.process.poll() is None:
        {"process": os.kill, "group": os.killpg}[target](served.process.pid, number)


@pytest.mark.parametrize("point", drawn(POINTS), ids=" ".join)
def test_a_signal_ends_a_service_in_order(exported: Path, point: tuple[str, str, str]) -> None:
    """The code is 0 whenever it comes; what is in flight completes, and nothing is left."""
    name, target, moment = point
    number, dice = signal.Signals[name], random.Random(f"{SEED} {point}")
    served = Served(exported)
    try:
        if moment.startswith("start"):
            part = int(moment.split()[1])
            time.sleep(0.1 + START_SECONDS * (part + dice.random()) / START_PARTS)
            send(served, number, target)
        else:
            served.await_ready()
            stream: Any = None
            if moment == "busy":
                busy = ASK | {"max_tokens": TOKENS, "extra_body": {"ignore_eos": True}}
                usage: Any = {"include_usage": True}
                stream = served.client.completions.create(**busy, stream=True, stream_options=usage)
                next(stream)
            begin = time.monotonic()
            send(served, number, target)
            if moment == "end":
                time.sleep(dice.uniform(0.0, 2.0))
                send(served, number, target)
            if stream:
                assert list(stream)[-1].usage.completion_tokens == TOKENS
            assert served.process.wait(DEADLINE) == 0, served.log
            seconds = time.monotonic() - begin
            print(f"\n{' '.join(point)}: {seconds:.1f} s")  # noqa: T201 - the figure
            assert seconds < GRACE_SECONDS
        assert served.process.wait(DEADLINE) == 0, served.log
        assert "Traceback" not in served.log
        check_end(served)
    finally:
        served.clean_up()


@pytest.mark.parametrize("pair", kills(KILLS), ids=" ".join)
def test_a_service_that_loses_a_process_heals_or_ends(exported: Path, pair: tuple[str, str]) -> None:
    """After the first it responds as ever, or ends as after the second: it says what died, and leaves nothing."""
    expendable, fatal = pair
    served = Served(exported)
    try:
        served.await_ready()
        members = processes(served)
        served.members += [each for group in members.values() for each in group]
        victim = random.Random(f"{SEED} {pair}").choice(members[expendable])
        name = title(victim)
        victim.kill()
        until(lambda: not title(victim), f"{name} is not killed")
        until(lambda: responds(served) or has_ended(served), lambda: f"{name} was killed: no response\n{served.log}")
        begin = time.monotonic()
        if fatal == "service":
            served.process.kill()
        else:
            for each in processes(served).get(fatal, []):
                each.kill()
        code = served.process.wait(DEADLINE)
        seconds = time.monotonic() - begin
        print(f"\n{name[:40]} was killed; then {fatal}: code {code} after {seconds:.1f} s")  # noqa: T201 - the figures
        if code == -signal.SIGKILL:
            assert fatal == "service"
            until(lambda: not left(served), lambda: f"left: {[title(each) for each in left(served)]}")
            assert len(list(served.temporary.iterdir())) == 1
            delete_dead_folders(served.temporary)
        else:
            assert code == 1, served.log
            assert "died" in served.log.splitlines()[-1]
        check_end(served)
    finally:
        served.clean_up()


def has_ended(served: Served) -> bool:
    """Whether a service has ended."""
    return served.process.poll() is not None


def responds(served: Served) -> bool:
    """Whether a service responds to a request."""
    with suppress(httpx.TransportError):
        return httpx.post(f"{served.url}/v1/completions", json=ASK, timeout=DEADLINE).status_code == 200
    return False
