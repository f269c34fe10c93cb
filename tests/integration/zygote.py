"""Starts `headway train` without its imports: a process that has loaded torch forks, and the fork is the command.

As a process of its own (`python -m tests.integration.zygote`, on the socket that is its standard input) this module
loads what a launcher and its ranks load, and forks a launcher for each request; the fork server that a launcher starts
is a fork, too. What differs from a command that is executed is only that the libraries are there already.
"""

import contextlib
import fcntl
import functools
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

CODE = struct.Struct("i")
REQUEST_BYTES = 1 << 20
ROOT = Path(__file__).parents[2]


class Command:
    """A command that was forked from the zygote; as much of `subprocess.Popen` as the tests use."""

    def __init__(self, words: Sequence[str], output: int | None = None, *, closed: bool = False) -> None:
        """Run `words`, with pipes as standard output and error; or both are the file `output`, or `closed`."""
        request = {"words": words, "environment": dict(os.environ), "folder": os.getcwd(), "closed": closed}  # noqa: PTH109
        with contextlib.ExitStack() as theirs:
            ours, connection = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            theirs.enter_context(connection)
            if output is None:
                pipes = [os.pipe() for _ in range(2)]
                ends = [end for _, end in pipes]
                for end in ends:
                    theirs.callback(os.close, end)
                self.stdout, self.stderr = (open(end, encoding="utf-8") for end, _ in pipes)  # noqa: PTH123, SIM115
            else:
                ends = [output, output]
            socket.send_fds(_zygote()[0], [json.dumps(request).encode()], [connection.fileno(), *ends])
        self._connection = ours
        (self.pid,) = CODE.unpack(self._connection.recv(CODE.size))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float) -> int:
        """Wait for the end [s]; returns the exit code."""
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout)
            (self.returncode,) = CODE.unpack(self._connection.recv(CODE.size))
            self._connection.close()
        return self.returncode


@functools.cache
def _zygote() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The zygote of this process, which ends with it, and the connection to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        return ours, subprocess.Popen([sys.executable, "-m", __name__], stdin=theirs.fileno(), cwd=ROOT)


def main() -> None:
    """Fork a command for each request, until whoever asks is gone."""
    _load()
    requests = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    awake, wake = socket.socketpair()
    for end in (awake, wake):
        end.settimeout(0)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    connections: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(awake, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if awake in ready:
                awake.recv(1 << 16)
                _tell(connections)
            if requests in ready:
                message, ends, _, _ = socket.recv_fds(requests, REQUEST_BYTES, 3)
                if not message:
                    return
                connection = socket.socket(fileno=ends[0])
                pid = os.fork()
                if pid == 0:
                    _become(json.loads(message), *ends[1:])
                for number in ends[1:]:
                    os.close(number)
                connections[pid] = connection
                connection.send(CODE.pack(pid))


def _load() -> None:
    """Import what launchers and ranks import, with the environment that they import it in."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    for name in ("torch._dynamo", "headway.cli.commands", "headway.train.host.launcher", "headway.train.worker"):
        importlib.import_module(name)


def _tell(connections: dict[int, socket.socket]) -> None:
    """Take in commands that have ended, and pass their codes on."""
    while connections:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with connections.pop(pid) as connection, contextlib.suppress(OSError):
            connection.send(CODE.pack(os.waitstatus_to_exitcode(status)))


def _become(request: dict[str, Any], output: int, errors: int) -> None:
    """Be the command, as if it had been executed."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.isatty(output):
            fcntl.ioctl(output, termios.TIOCSCTTY, 0)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.closerange(1 if request["closed"] else 3, os.sysconf("SC_OPEN_MAX"))
        _open_output()
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = ["headway", *request["words"]]
        util.spawnv_passfds = functools.partial(_spawn, util.spawnv_passfds)
        runpy.run_module("headway.cli", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                if stream:
                    stream.flush()
        os._exit(code)


def _open_output() -> None:
    """Open standard output and error as Python does, which has none where they are closed."""
    for number, name in (1, "stdout"), (2, "stderr"):
        try:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        except OSError:
            setattr(sys, name, None)


def _spawn(execute: Callable[..., int], path: bytes, words: Sequence[str], ends: Sequence[int]) -> int:
    """Start a helper of multiprocessing: the fork server as a fork, which spares it the imports; others as usual."""
    if "multiprocessing.forkserver" not in words[-1]:
        return execute(path, words, ends)
    pid = os.fork()
    if pid == 0:
        try:
            last = 2
            for end in [*sorted(ends), os.sysconf("SC_OPEN_MAX")]:
                os.closerange(last + 1, end)
                last = end
            for number in (signal.SIGTERM, signal.SIGUSR2):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _open_output()
            vars(forkserver)["_forkserver"].__init__()  # its lock is held
            exec(words[-1], {})  # noqa: S102 - what it would be executed with
        finally:
            os._exit(1)
    return pid


if __name__ == "__main__":
    main()
