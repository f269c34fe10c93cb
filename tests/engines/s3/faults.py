"""A bad network: a proxy between a client and a real S3 server that harms requests and answers on purpose.

    with S3Server(folder) as server, BadNetwork(server, odds(seed=1, shares={Fault.RESET: 0.1})) as network:
        ...  # with network.environment

Requests for one object reach the server in the order in which they came, also those whose sender no longer waits:
what is there at the end can be told then.
"""

import hashlib
import hmac
import random
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.engines.s3.server import S3Server

HEAD_BYTES = 1 << 16
"""More than any head of a request or an answer here."""
DRIBBLES = 5
DRIBBLE_SECONDS = 0.01
"""A throttled answer comes in so many pieces, so far apart [s]."""


class Fault(StrEnum):
    """What can happen to one request."""

    SLOW_DOWN = "503 SlowDown"
    INTERNAL = "500 InternalError"
    TOO_MANY = "429 TooManyRequests"
    RESET = "reset before the server had it"
    CUT_UPLOAD = "the server got half of it"
    STALL = "no answer, and it never reached the server"
    STALLED_BODY = "half of the answer, then nothing"
    RESET_BODY = "half of the answer, then a reset"
    CUT_BODY = "a part of the answer's body, then an end as if it were all"
    EMPTY_BODY = "the answer's head, then an end as if it were all"
    HOLLOW = "200 at once, but never a body, and nothing done"
    NOBODY = "404 of somebody in between, who is no S3 server"
    FORGOTTEN = "404 NoSuchUpload"
    LOST = "done by the server, answer lost"
    THROTTLED = "the answer dribbles"


REFUSALS = {
    Fault.SLOW_DOWN: "503 SlowDown",
    Fault.INTERNAL: "500 InternalError",
    Fault.TOO_MANY: "429 TooManyRequests",
    Fault.NOBODY: "404 NotFound",
    Fault.FORGOTTEN: "404 NoSuchUpload",
}
BEFORE = {*REFUSALS, Fault.RESET, Fault.STALL, Fault.HOLLOW}
"""The server never has the request."""
SPOILS_BODY = {Fault.STALLED_BODY, Fault.RESET_BODY, Fault.CUT_BODY, Fault.EMPTY_BODY}
SPOILS_ANSWER = {Fault.LOST, *SPOILS_BODY}
"""The server has done what was asked, and its client does not know."""


@dataclass(frozen=True)
class Message:
    """A request or an answer of HTTP, whole."""

    first: str
    headers: dict[str, str]
    """By names in small letters; S3 repeats none."""
    body: bytes

    @property
    def head(self) -> bytes:
        """What goes before the body."""
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def having(self, **headers: str) -> "Message":
        """The same with headers replaced."""
        return replace(self, headers={**self.headers, **headers})


@dataclass(frozen=True)
class Request:
    """One request as a plan sees it."""

    operation: str
    """`put`, `create`, `get`, `head`, `delete`, `list`; `begin`, `part`, `complete`, `abort`, `uploads`."""
    key: str
    """Path and, of a part, its number."""
    turn: int
    """How often this operation has been asked of this key before."""


Plan = Callable[[Request], Fault | None]
"""Says what happens to a request."""


def nothing(_request: Request) -> None:
    """A good network."""
    return


def odds(seed: int, shares: Mapping[Fault, float]) -> Plan:
    """Each fault in its share of all requests, decided by seed, operation, key and turn, whatever the order."""
    faults, weights = [*shares, None], [*shares.values(), 1 - sum(shares.values())]

    def decide(request: Request) -> Fault | None:
        drawn = random.Random(f"{seed} {request.operation} {request.key} {request.turn}")
        return drawn.choices(faults, weights)[0]

    return decide


def first(times: int, fault: Fault, *operations: str) -> Plan:
    """A fault for the first `times` requests for each key, of these operations or of all."""
    harmed = always(fault, *operations)
    return lambda request: harmed(request) if request.turn < times else None


def always(fault: Fault, *operations: str) -> Plan:
    """A fault for every request, or for every one of these operations."""
    return lambda request: fault if not operations or request.operation in operations else None


@dataclass
class BadNetwork:
    """Listens on a port of its own and passes on to `server`, with the faults of `plan`, which may be replaced."""

    server: S3Server
    plan: Plan = nothing
    unconditional: bool = False
    """Take the conditions off requests (and sign them anew), as if the server ignored them."""
    injected: Counter[Fault] = field(default_factory=Counter)
    spoiled: Counter[str] = field(default_factory=Counter)
    """Requests that the server did, while its client was not told, by operation."""
    seen: Counter[str] = field(default_factory=Counter)
    """All requests, by operation."""

    def __post_init__(self) -> None:
        self._turns: Counter[tuple[str, str]] = Counter()
        self._order: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        port: int = self._listener.getsockname()[1]
        self.environment = {**self.server.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="bad network", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(connection)
            self._start(self._serve, connection)

    def _serve(self, client: socket.socket) -> None:
        """Answer one client's requests until it or a fault ends the connection."""
        with client, suppress(OSError):
            while not self._closing.is_set() and (message := _receive(client)):
                if not self._handle(client, message):
                    break
        with self._lock:
            self._open.discard(client)

    def _handle(self, client: socket.socket, message: Message) -> bool:
        """Do one request, or harm it; returns whether the connection goes on."""
        request, path = self._described(message)
        fault = self._fitting(self.plan(request), message)
        if fault in BEFORE:
            self._note(fault, request)
            return self._keep(client, message, fault)
        with self._order[path]:
            if fault is Fault.CUT_UPLOAD:
                self._note(fault, request)
                self._ask(message, len(message.body) // 2)
                return _reset(client)
            answer = self._ask(message)
        if fault is None or (fault in SPOILS_BODY and not answer.body):
            client.sendall(answer.head + answer.body)
            return True
        self._note(fault, request)
        return self._spoil(client, answer, fault, request)

    @staticmethod
    def _keep(client: socket.socket, message: Message, fault: Fault) -> bool:
        """Harm a request that the server will never see; returns whether the connection goes on."""
        if fault in REFUSALS:
            client.sendall(_refusal(fault, message))
            return True
        if fault is Fault.STALL:
            client.recv(1)  # returns when the client has had enough
        elif fault is Fault.HOLLOW:
            client.sendall(Message("HTTP/1.1 200 OK", {"content-length": "100"}, b"").head)
        else:
            _reset(client)
        return False

    @staticmethod
    def _fitting(fault: Fault | None, message: Message) -> Fault | None:
        """The fault, unless it cannot happen to such a request."""
        method = message.first.partition(" ")[0]
        unfit = {Fault.CUT_UPLOAD: not message.body, Fault.HOLLOW: method != "POST", Fault.NOBODY: method == "HEAD"}
        return None if fault and unfit.get(fault) else fault

    def _spoil(self, client: socket.socket, answer: Message, fault: Fault, request: Request) -> bool:
        """Give an answer away badly; returns whether the connection goes on."""
        whole, half = answer.head + answer.body, len(answer.head) + len(answer.body) // 2
        if fault is Fault.THROTTLED:
            step = -(-len(whole) // DRIBBLES)
            for start in range(0, len(whole), step):
                client.sendall(whole[start : start + step])
                self._closing.wait(DRIBBLE_SECONDS)
            return True
        if fault is Fault.LOST:
            return _reset(client) if request.turn % 2 else False
        client.sendall(answer.head if fault is Fault.EMPTY_BODY else whole[:half])
        if fault is Fault.RESET_BODY:
            return _reset(client)
        if fault is Fault.STALLED_BODY:
            client.recv(1)
        return False

    def _described(self, message: Message) -> tuple[Request, str]:
        method, target, _ = message.first.split(" ")
        path, query = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        operation = _operation(method, query, "if-none-match" in message.headers)
        key = f"{path} {query.get('partNumber', '')}{query.get('continuation-token', '')}".rstrip()
        with self._lock:
            turn = self._turns[operation, key]
            self._turns[operation, key] += 1
            self.seen[operation] += 1
        return Request(operation, key, turn), path

    def _note(self, fault: Fault, request: Request) -> None:
        with self._lock:
            self.injected[fault] += 1
            self.spoiled[request.operation] += fault in SPOILS_ANSWER

    def _ask(self, message: Message, upto: int | None = None) -> Message:
        """The server's answer; only a part of the request's body is sent if `upto` says so, and nothing answered."""
        if self.unconditional and "if-none-match" in message.headers:
            message = _signed_anew(message, self.server.environment["AWS_SECRET_ACCESS_KEY"])
        with socket.create_connection(("127.0.0.1", self.server.port)) as server:
            server.sendall(message.having(connection="close").head + message.body[:upto])
            if upto is not None:
                server.shutdown(socket.SHUT_WR)
            data = b"".join(iter(lambda: server.recv(1 << 20), b""))
        answer = _parsed(*data.partition(b"\r\n\r\n")[::2])
        return replace(answer, headers={name: value for name, value in answer.headers.items() if name != "connection"})


def _operation(method: str, query: Mapping[str, str], conditional: bool) -> str:  # noqa: FBT001 - a plain table
    if method == "PUT":
        return "part" if "partNumber" in query else "create" if conditional else "put"
    if method == "POST":
        return "begin" if "uploads" in query else "complete"
    if method == "GET":
        return "uploads" if "uploads" in query else "list" if "list-type" in query else "get"
    return "abort" if "uploadId" in query else method.lower()


def _receive(client: socket.socket) -> Message | None:
    """The next request, whole; None if there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(HEAD_BYTES)
        if not more:
            return None
        data += more
    head, _, data = data.partition(b"\r\n\r\n")
    message = _parsed(head, b"")
    if message.headers.pop("expect", ""):
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body, length = bytearray(data), int(message.headers.get("content-length", 0))
    while len(body) < length:
        more = client.recv(1 << 20)
        if not more:
            return None
        body += more
    return replace(message, body=bytes(body))


def _parsed(head: bytes, body: bytes) -> Message:
    first_line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":")[::2] for line in lines)
    return Message(first_line, {name.lower(): value.strip() for name, value in pairs}, body)


def _refusal(fault: Fault, message: Message) -> bytes:
    """An error as S3 words it."""
    status, code = REFUSALS[fault].split()
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>on purpose</Message></Error>"
    if fault is Fault.NOBODY:
        body = "<html><h1>default backend - 404"
    headers = {"content-type": "application/xml", "content-length": str(len(body))}
    answer = Message(f"HTTP/1.1 {status} {code}", headers, b"")
    return answer.head + (b"" if message.first.startswith("HEAD ") else body.encode())


def _reset(client: socket.socket) -> bool:
    """End a connection without a farewell."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _signed_anew(message: Message, secret: str) -> Message:
    """The request without its condition, with the signature that it has then (AWS Signature Version 4)."""
    scheme, _, rest = message.headers["authorization"].partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    names = [name for name in fields["SignedHeaders"].split(";") if name != "if-none-match"]
    method, target, _ = message.first.split(" ")
    parts = urlsplit(target)
    canonical = [
        method, parts.path, urlencode(sorted(parse_qsl(parts.query, keep_blank_values=True))),
        *(f"{name}:{message.headers[name]}" for name in names), "", ";".join(names),
        message.headers["x-amz-content-sha256"],
    ]  # fmt: skip
    _, *scope = fields["Credential"].split("/")
    key = f"AWS4{secret}".encode()
    for word in scope:
        key = hmac.digest(key, word.encode(), "sha256")
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", message.headers["x-amz-date"], "/".join(scope), digest])
    fields |= {
        "SignedHeaders": ";".join(names),
        "Signature": hmac.digest(key, to_sign.encode(), "sha256").hex(),
    }
    signed = ", ".join(f"{name}={value}" for name, value in fields.items())
    kept = {name: value for name, value in message.headers.items() if name != "if-none-match"}
    return replace(message, headers={**kept, "authorization": f"{scheme} {signed}"})
