"""The write timeout, over real sockets."""

import asyncio
import socket
from contextlib import closing
from threading import Event, Thread

import pytest
import uvicorn
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send
from tests.unit.serve.replicas import behind, replica_runtime

from headway.serve.middleware.write_timeout import WriteTimeout

PIECE = b"x" * 2**16


class Endless:
    """An application that responds with 300 MB, and records when it is cancelled."""

    def __init__(self) -> None:
        self.stopped = Event()
        self.pieces = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send the response."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while self.pieces < 5000:
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
                self.pieces += 1
                await asyncio.sleep(0)
        finally:
            self.stopped.set()


@pytest.mark.parametrize("reads", [False, True], ids=["never", "slowly"])
def test_an_unread_response_is_cancelled(reads: bool) -> None:  # noqa: FBT001
    """A client that reads slowly still gets its response."""
    app = Endless()
    seconds, sinks = 30.0 if reads else 0.2, replica_runtime().sinks
    middleware = behind(app, Middleware(WriteTimeout, timeout_seconds=seconds, sinks=sinks))
    server = uvicorn.Server(uvicorn.Config(middleware, lifespan="off", log_level="critical"))
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        with socket.create_connection(listener.getsockname(), timeout=30) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if reads:
                for _ in range(100):
                    assert client.recv(2**16)
                assert not app.stopped.is_set()
            else:
                assert app.stopped.wait(30)
                assert app.pieces < 1000
        assert app.stopped.wait(30)
        server.should_exit = True
        server.force_exit = True
        thread.join(30)
