"""A proxy that spoils requests to an object store: 5xx, resets, hangs, cut answers.

The host header is passed on as it came, since it is signed: the store must be told to be reached
at the proxy's own address.
"""

from __future__ import annotations

import random
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["FAULTS", "FaultProxy", "run_fault_proxy"]

FAULTS = ("503", "reset_before", "reset_after", "hang", "truncate")


class FaultProxy(socketserver.ThreadingTCPServer):
    """One request per connection, so that each meets its own fate.

    Attributes
    ----------
    rate : share of the requests that are spoiled, 0 to 1
    seen : how many requests met which fate
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, upstream: str, *, seed: int, faults: tuple[str, ...] = FAULTS) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        host, port = upstream.split(":")
        self.upstream = (host, int(port))
        self.rate = 0.0
        self.seen: Counter[str] = Counter()
        self._faults = faults
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """host:port of the proxy."""
        host, port = self.server_address[:2]
        return f"{host!s}:{port}"

    def choose(self) -> str:
        """Return the fate of the next request; empty: it passes."""
        with self._lock:
            often = self.seen.total() % 25 == 24  # at least one in a short run
            spoiled = self.rate > 0 and (often or self._random.random() < self.rate)
            fault = self._random.choice(self._faults) if spoiled else ""
            self.seen[fault or "passed"] += 1
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: broken connections are this program's trade."""


class _Relay(socketserver.BaseRequestHandler):
    server: FaultProxy

    def handle(self) -> None:
        client: socket.socket = self.request
        client.settimeout(20)
        head, body = _read_request(client)
        if not head:
            return
        fault = self.server.choose()
        if fault == "503":
            client.sendall(_answer_busy())
            return
        if fault == "reset_before":
            _reset(client)
            return
        if fault == "hang":
            client.recv(1)  # until the client gives up
            return
        answer = self._ask(head, body)
        if fault == "reset_after":
            _reset(client)
        elif fault == "truncate":
            client.sendall(answer[: max(1, len(answer) // 2)])
        else:
            client.sendall(answer)

    def _ask(self, head: bytes, body: bytes) -> bytes:
        first, *lines = head.split(b"\r\n")
        kept = [line for line in lines if line and not line.lower().startswith(b"connection:")]
        request = b"\r\n".join([first, *kept, b"Connection: close", b"", b""]) + body
        answer = b""
        with socket.create_connection(self.server.upstream, timeout=20) as store:
            store.sendall(request)
            while chunk := store.recv(65536):
                answer += chunk
        return answer


def _answer_busy() -> bytes:
    body = b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )


def _read_request(client: socket.socket) -> tuple[bytes, bytes]:
    content = b""
    while b"\r\n\r\n" not in content:
        chunk = client.recv(65536)
        if not chunk:
            return b"", b""
        content += chunk
    head, _, body = content.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += client.recv(65536)
    return head, body


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    client.close()


@contextmanager
def run_fault_proxy(
    upstream: str, *, seed: int, faults: tuple[str, ...] = FAULTS
) -> Iterator[FaultProxy]:
    """Run a proxy in front of ``upstream`` (host:port) until the block ends."""
    with FaultProxy(upstream, seed=seed, faults=faults) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join(timeout=5)
