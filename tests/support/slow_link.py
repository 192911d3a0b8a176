"""A relay between two services on loopback that delays answers, or lets nothing through."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["SlowLink", "run_slow_link"]

_CHUNK_BYTES = 65536


class SlowLink(socketserver.ThreadingTCPServer):
    """Pass connections on to ``upstream`` (host:port).

    Attributes
    ----------
    delay_s : each piece of an answer waits so long
    is_cut : nothing gets through any more; connections stay open, as when packets are dropped
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        host, _, port = upstream.partition(":")
        self.upstream = (host, int(port))
        self.delay_s = 0.0
        self.is_cut = False
        self.closing = threading.Event()

    @property
    def endpoint(self) -> str:
        """host:port of the link."""
        host, port = self.server_address[:2]
        return f"{host!s}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: broken connections are this program's trade."""


class _Relay(socketserver.BaseRequestHandler):
    server: SlowLink

    def handle(self) -> None:
        client: socket.socket = self.request
        if self.server.is_cut:
            self.server.closing.wait()
            return
        with socket.create_connection(self.server.upstream, timeout=20) as upstream:
            upstream.settimeout(None)
            back = threading.Thread(target=self._pump, args=(upstream, client, True), daemon=True)
            back.start()
            self._pump(client, upstream, False)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        """Copy what one side sends to the other until it ends."""
        with suppress(OSError):
            while True:
                chunk = source.recv(_CHUNK_BYTES)
                if is_answer and chunk:
                    self.server.closing.wait(self.server.delay_s)
                if self.server.is_cut:
                    self.server.closing.wait()
                    return
                if not chunk:
                    break
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def run_slow_link(upstream: str) -> Iterator[SlowLink]:
    """Run a link to ``upstream`` for the enclosed block."""
    with SlowLink(upstream) as link:
        threading.Thread(target=link.serve_forever, daemon=True).start()
        try:
            yield link
        finally:
            link.closing.set()
            link.shutdown()
