"""Starts the S3 server that `make engines` built.

`make s3` runs it in out/s3 until Ctrl-C and prints what to export; `python -m tests.engines.s3.server -- COMMAND` runs
it for as long as a command takes; tests use `with S3Server(folder) as server`.
"""

import argparse
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

BINARY = Path(__file__).parents[3] / ".engines" / "versitygw"
BUCKET = "headway"
PORTS = range(30_000, 32_768)
"""Below those that the kernel hands out to connections: one of them could take the port before the server has it."""
START_SECONDS = 30.0
"""Within which the server must answer [s]."""


class S3Server:
    """A real S3 server on this machine, at its address `host`; its buckets are the folders in `folder`."""

    def __init__(self, folder: Path, port: int = 0, host: str = "127.0.0.1") -> None:
        self.folder, self.host, self.port = folder, host, port or _free_port(host)
        self.url = f"s3://{BUCKET}"
        self.endpoint = f"http://{host}:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "headway",
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        """What a client needs, in AWS's own words."""

    def __enter__(self) -> Self:
        (self.folder / "objects" / BUCKET).mkdir(parents=True, exist_ok=True)
        self._log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [
                *(str(BINARY), "--port", f"{self.host}:{self.port}", "--quiet", "--keep-alive"),
                *("posix", str(self.folder / "objects")),
            ],
            env={
                "PATH": os.environ["PATH"],
                "ROOT_ACCESS_KEY": self.environment["AWS_ACCESS_KEY_ID"],
                "ROOT_SECRET_KEY": self.environment["AWS_SECRET_ACCESS_KEY"],
            },
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"the S3 server did not start; see {self.folder / 'server.log'}")
            time.sleep(0.02)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait()
        self._log.close()

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), 1.0):
            return True
        return False


def _free_port(host: str = "127.0.0.1") -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            return port
    raise RuntimeError(f"no port of {host} is free from {PORTS[0]} to {PORTS[-1]}")


def main() -> None:
    """Run the server until it is told to stop, or until a command has ended."""
    parser = argparse.ArgumentParser(description="A real S3 server on this machine.")
    parser.add_argument("--folder", type=Path, default=Path("out/s3"), help="where its objects lie")
    parser.add_argument("--port", type=int, default=7070)
    parser.add_argument("command", nargs="*", help="run this with the server's environment, then stop")
    chosen = parser.parse_args()
    server = S3Server(chosen.folder.absolute(), chosen.port)
    key = chosen.folder / "secret"
    if key.exists():
        server.environment["AWS_SECRET_ACCESS_KEY"] = key.read_text(encoding="utf-8")
    with server:
        key.touch(mode=0o600)
        key.write_text(server.environment["AWS_SECRET_ACCESS_KEY"], encoding="utf-8")
        if chosen.command:
            sys.exit(subprocess.run(chosen.command, env={**os.environ, **server.environment}, check=False).returncode)
        lines = [*(f"export {name}={value}" for name, value in server.environment.items())]
        lines += [f"export HEADWAY_STORE={server.url}/runs"]
        sys.stdout.write("\n".join(lines) + "\n# paste these into another shell; Ctrl-C here ends the server\n")
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            server.process.wait()


if __name__ == "__main__":
    main()
