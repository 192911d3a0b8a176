"""Servers that say what a test wants, byte by byte; a proxy that records; TLS in front of a server.

All on loopback, each until its ``with`` block ends.
"""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal

import pytest


@dataclass(frozen=True)
class Received:
    """One request; ``connection`` counts from 0."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Act:
    data: bytes = b""
    then: Literal["keep", "close", "reset", "hang"] = "keep"


@dataclass
class Server:
    endpoint: str
    received: list[Received] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.received]


def make_answer(body: bytes = b"", status: int = 200, *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"content-length: {len(body)}", *lines))
    return f"HTTP/1.1 {status} So\r\n{head}\r\n".encode() + body


def answer_json(status: int, body: Any) -> Act:
    """Answer as a simple service does, which keeps no connection open."""
    date = f"date: {formatdate(usegmt=True)}"
    lines = ("content-type: application/json", "connection: close", date)
    return Act(make_answer(json.dumps(body).encode(), status, *lines), "close")


@contextmanager
def run_server(
    answer: Callable[[Received], Act | bytes], *, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    def serve(client: socket.socket) -> None:
        number = len(server.connections)
        server.connections.append(client)
        stream = client.makefile("rb")
        while (request := _read(stream, number)) is not None:
            server.received.append(request)
            act = answer(request)
            act = act if isinstance(act, Act) else Act(act)
            client.sendall(act.data)
            if act.then == "hang":
                server.closing.wait(30)
            if act.then == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.close()
            if act.then != "keep":
                return

    with _run(serve, tls) as server:
        yield server


@contextmanager
def run_proxy() -> Iterator[Server]:
    def serve(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (part := client.recv(65536)):
                return
            head += part
        line, _, rest = head.partition(b"\r\n")
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers = _parse_headers(rest.partition(b"\r\n\r\n")[0].split(b"\r\n"))
        server.received.append(Received(0, method, target, headers, b""))
        is_tunnel = method == "CONNECT"
        host, port = (target if is_tunnel else target.split("/")[2]).rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as upstream:
            if is_tunnel:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                upstream.sendall(head)
            _relay(client, upstream)

    with _run(serve) as server:
        yield server


@contextmanager
def run_tls_front(upstream: str, context: ssl.SSLContext) -> Iterator[Server]:
    host, port = upstream.rsplit(":", 1)

    def serve(client: socket.socket) -> None:
        with socket.create_connection((host, int(port)), timeout=30) as plain:
            _relay(client, plain)

    with _run(serve, context) as server:
        yield server


def make_certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    ca = [*key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests"]
    ca += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]  # else strict clients refuse it
    leaf = [*key, "-keyout", "leaf.key", "-out", "leaf.pem", "-subj", "/CN=127.0.0.1"]
    leaf += ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    leaf += ["-addext", "basicConstraints=critical,CA:FALSE"]
    for arguments in (ca, leaf):
        command = ["openssl", "req", "-x509", *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
    return folder / "ca.pem", context


@pytest.fixture
def foreign_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Return a function that sets what other tools read, with a proxy at an endpoint."""

    def set_all(proxy: str) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy}")
            monkeypatch.setenv(name.upper(), f"http://{proxy}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        nothing = tmp_path / "nothing.pem"
        nothing.write_text("")
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE"):
            monkeypatch.setenv(name, str(nothing))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
        wrong = {
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "wrong",
            "AWS_SESSION_TOKEN": "wrong",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REGION": "mars-1",
            "AWS_DEFAULT_REGION": "mars-1",
            "AWS_PROFILE": "nobody",
            "AWS_ENDPOINT_URL": f"http://{proxy}",
            "AWS_ENDPOINT_URL_S3": f"http://{proxy}",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
            "MINIO_ACCESS_KEY": "nobody",
        }
        for name, value in wrong.items():
            monkeypatch.setenv(name, value)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login nobody password wrong\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    return set_all


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: broken connections are wanted."""


@contextmanager
def _run(
    serve: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            client: socket.socket = self.request
            client.settimeout(30)
            with suppress(OSError):
                if tls is None:
                    serve(client)
                else:
                    with tls.wrap_socket(client, server_side=True) as secured:
                        serve(secured)

    with _Server(("127.0.0.1", 0), Handler) as server:
        running = Server(f"127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.closing.set()
            server.shutdown()
            thread.join(timeout=5)


def _read(stream: Any, connection: int) -> Received | None:
    lines: list[bytes] = []
    while (line := stream.readline(65536)) not in (b"\r\n", b""):
        lines.append(line.rstrip(b"\r\n"))
    if not lines:
        return None
    method, target, _ = lines[0].decode("latin-1").split(" ", 2)
    headers = _parse_headers(lines[1:])
    body = stream.read(int(headers.get("content-length", 0)))
    return Received(connection, method, target, headers, body)


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return {name.lower(): text.strip() for name, _, text in pairs}


def _relay(one: socket.socket, other: socket.socket) -> None:
    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                sink.sendall(part)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join(timeout=30)
