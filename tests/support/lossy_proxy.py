"""A proxy before an object store that decides the fate of each request, by kind.

It can lose the answer after the effect, hang, reset, cut, answer 503 or a false 404, or let a
request take effect after its client gave up; and it can spring a trap (a kill, a pause) at the
n-th request of a kind, right before its effect or right after it. Connections stay open, as a
real one's do. The host header is signed, so the store is addressed at the proxy's own address.

It can also be what stands between us and the store and answers by itself, without asking it: the
fate ``made-404-html`` is a 404 that is an HTML page. Or it repeats a request that the store has
answered: the fate ``replay``. A rename counts as a copy here, and so does a put that is not the
runbook's own: it brings a label to its destination on a store without copies.
"""

from __future__ import annotations

import random
import re
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

Kind = Literal["copy", "delete", "bulk", "claim", "record", "own", "list", "head", "get"]
_READ_FATES = ("503", "reset_before", "hang", "reset_after", "truncate", "slow")
#: What a router, a captive portal or a gateway says in place of the store; ``xml`` is the store's.
_MADE_BODIES = {
    "text": ("text/plain", b"not here\n"),
    "html": ("text/html", b"<html><head><title>Error</title></head><body>not here</body></html>"),
}
_MADE_CODES = {"403": "AccessDenied", "507": "XMinioStorageFull"}
#: ``late`` breaks the connection at once and lets the effect come some seconds after.
FATES = (*_READ_FATES, "hang_after", "404_after", "late")
_READS = ("list", "head", "get")


@dataclass(frozen=True)
class Request:
    """One request as the proxy read it; ``key`` is without its bucket."""

    kind: Kind
    key: str
    raw: bytes


def _is_any(_request: Request) -> bool:
    return True


@dataclass
class Spoil:
    """So many of the requests of some kinds meet a fate: each of ``fates`` once, in their order.

    ``matches`` says which of them are meant.
    """

    kinds: tuple[str, ...]
    rate: float
    fates: list[str]
    matches: Callable[[Request], bool] = _is_any

    def take(self, *, is_read: bool) -> str:
        fates = (fate for fate in self.fates if not is_read or _can_meet_reads(fate))
        if fate := next(fates, ""):
            self.fates.remove(fate)
        return fate


def _can_meet_reads(fate: str) -> bool:
    return fate in _READ_FATES or fate.startswith("made-")


@dataclass
class Trap:
    """What happens at the ``number``-th request from now on of some kinds that ``matches``."""

    kinds: tuple[str, ...]
    number: int
    phase: str  # before or after
    act: Callable[[], None]
    matches: Callable[[Request], bool] = _is_any
    sprung: threading.Event = field(default_factory=threading.Event)


class LossyProxy(socketserver.ThreadingTCPServer):
    """Pass requests on to ``upstream`` (host:port), but for those that are to be spoiled.

    Attributes
    ----------
    spoils : which requests meet which fates; may be changed at any time
    traps : those that have not sprung yet
    seen : how many requests of a kind met which fate
    landed : how often the store confirmed a copy to a key that is not the runbook's own
    late_s : the longest time by which a late or slow request is delayed
    rewrite : changes a request before the store gets it
    has_renames, has_copies : whether the store is asked to rename, to copy; else it seems not to
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str, *, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        host, port = upstream.split(":")
        self.upstream = (host, int(port))
        self.spoils: list[Spoil] = []
        self.traps: list[Trap] = []
        self.seen: Counter[tuple[str, str]] = Counter()
        self.landed: Counter[str] = Counter()
        self.late_s = 3.0
        self.rewrite: Callable[[bytes], bytes] | None = None
        self.has_renames = True
        self.has_copies = True
        self.closing = threading.Event()
        self._open = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        host, port = self.server_address[:2]
        return f"{host!s}:{port}"

    @property
    def is_idle(self) -> bool:
        """Whether no request that changes something is on its way, late ones included."""
        with self._lock:
            return self._open == 0

    def calm(self) -> None:
        with self._lock:
            self.spoils, self.traps = [], []

    def choose(self, request: Request) -> str:
        with self._lock:
            fate = ""
            for spoil in self.spoils:
                is_its = request.kind in spoil.kinds and spoil.matches(request)
                if is_its and self._random.random() < spoil.rate:
                    fate = spoil.take(is_read=request.kind in _READS)
                    break
            self.seen[(request.kind, fate or "passed")] += 1
            return fate

    def spring(self, request: Request, phase: str) -> None:
        with self._lock:
            for trap in self.traps:
                is_its = request.kind in trap.kinds and trap.phase == phase
                if is_its and trap.matches(request):
                    trap.number -= 1
            sprung = [trap for trap in self.traps if trap.number == 0]
            self.traps = [trap for trap in self.traps if trap.number > 0]
        for trap in sprung:
            trap.act()
            trap.sprung.set()

    def pause(self) -> None:
        with self._lock:
            delay_s = self._random.uniform(0.2, self.late_s)
        self.closing.wait(delay_s)

    def ask(self, request: Request) -> bytes:
        answer, changes = b"", request.kind not in _READS
        with self._lock:
            self._open += changes
        try:
            with socket.create_connection(self.upstream, timeout=60) as store:
                store.sendall(self.rewrite(request.raw) if self.rewrite else request.raw)
                while chunk := store.recv(65536):
                    answer += chunk
        except OSError:
            return b""
        finally:
            with self._lock:
                self._open -= changes
                if request.kind == "copy" and _is_success(request, answer):
                    self.landed[request.key] += 1
        return answer

    def ask_late(self, request: Request) -> None:
        with self._lock:
            self._open += 1
        try:
            self.pause()
            self.ask(request)
        finally:
            with self._lock:
                self._open -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: broken connections are this program's trade."""


class _Relay(socketserver.StreamRequestHandler):
    server: LossyProxy

    def handle(self) -> None:
        self.connection.settimeout(60)
        while (request := self._read()) is not None and self._pass_on(request):
            pass

    def _read(self) -> Request | None:
        lines: list[bytes] = []
        with suppress(OSError):
            while (line := self.rfile.readline(65536)) not in (b"\r\n", b""):
                lines.append(line.rstrip(b"\r\n"))
        if not lines:
            return None
        headers = {
            name.strip().lower().decode(): text.strip().decode("latin-1")
            for name, _, text in (line.partition(b":") for line in lines[1:])
        }
        body = self.rfile.read(int(headers.get("content-length", 0)))
        kept = [line for line in lines if not line.lower().startswith(b"connection:")]
        raw = b"\r\n".join([*kept, b"Connection: close", b"", b""]) + body
        method, target, _ = lines[0].decode("latin-1").split(" ", 2)
        return _classify(method, target, headers, body, raw)

    def _pass_on(self, request: Request) -> bool:
        """Let a request meet its fate; tell whether the connection lives on."""
        server, fate = self.server, self.server.choose(request)
        server.spring(request, "before")
        is_lacking = _is_copy(request) and not server.has_copies
        if is_lacking or (is_rename(request) and not server.has_renames):
            self.wfile.write(_answer(501, "NotImplemented", request.key))
            return True
        if fate in ("503", "reset_before", "hang", "late"):
            return self._end(fate, request)
        if fate.startswith("made-"):
            self.wfile.write(_make_answer(fate, request))
            return True
        if fate == "slow":
            server.pause()
        answer = server.ask(request)
        if fate == "replay":
            server.pause()
            server.ask(request)
        server.spring(request, "after")
        if not answer or fate in ("reset_after", "hang_after", "404_after"):
            return self._end(fate or "reset", request)
        if fate == "truncate":
            self.wfile.write(answer[: max(1, len(answer) // 2)])
            return False
        self.wfile.write(re.sub(rb"(?i)\r\nconnection: close", b"", answer, count=1))
        head = answer.partition(b"\r\n\r\n")[0].lower()
        return b"content-length:" in head or b"chunked" in head or b" 204 " in head[:20]

    def _end(self, fate: str, request: Request) -> bool:
        """Answer falsely, or not at all; tell whether the connection lives on."""
        if fate in ("503", "404_after"):
            code = "SlowDown" if fate == "503" else "NoSuchKey"
            self.wfile.write(_answer(int(fate[:3]), code, request.key))
            return True
        if fate.startswith("hang"):
            self.connection.recv(1)  # until the client gives up
            return False
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # a reset
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.rfile.close()  # a file object over it keeps the socket open
        self.connection.close()
        if fate == "late":
            self.server.ask_late(request)
        return False


def is_rename(request: Request) -> bool:
    return b"renameObject" in request.raw.partition(b"\r\n")[0]


def _is_copy(request: Request) -> bool:
    return b"\r\nx-amz-copy-source:" in request.raw.partition(b"\r\n\r\n")[0].lower()


def _is_success(request: Request, answer: bytes) -> bool:
    if _is_copy(request):
        return b"CopyObjectResult" in answer
    return b" 200 " in answer.partition(b"\r\n")[0]


def _classify(
    method: str, target: str, headers: dict[str, str], body: bytes, raw: bytes
) -> Request:
    path, _, rest = target.partition("?")
    key = unquote(path).lstrip("/").partition("/")[2]
    query = parse_qs(rest, keep_blank_values=True)
    kind: Kind
    if method in ("GET", "HEAD"):
        kind = "list" if not key and method == "GET" else "head" if method == "HEAD" else "get"
    elif key.startswith(".runbook/claims/"):
        kind = "claim"
    elif key.startswith((".runbook/state", ".runbook/parts/", ".runbook/plans/")):
        kind = "record"
    elif key.startswith(".runbook/") or ".runbook-probe-" in key or "/absent-" in key:
        kind = "own"  # `absent-…`: a right is tried on what does not exist
    elif method == "POST" and "delete" in query:
        keys = re.findall(rb"<Key>([^<]*)</Key>", body)
        kind = "own" if all(name.startswith(b".runbook/") for name in keys) else "bulk"
    elif method == "DELETE":
        kind = "delete"
    else:
        kind = "copy"
    return Request(kind, key, raw)


def _answer(status: int, code: str, key: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Key>{escape(key)}</Key></Error>".encode()
    head = f"HTTP/1.1 {status} Spoiled\r\nContent-Type: application/xml\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _make_answer(fate: str, request: Request) -> bytes:
    _, status, form = fate.split("-")
    if form == "xml":
        answer = _answer(int(status), _MADE_CODES[status], request.key)
        head, _, body = answer.partition(b"\r\n\r\n")
    else:
        kind, body = _MADE_BODIES[form]
        lines = (f"HTTP/1.1 {status} Made", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
        head = "\r\n".join(lines).encode()
    return head + b"\r\n\r\n" + (b"" if request.raw.startswith(b"HEAD ") else body)


@contextmanager
def run_lossy_proxy(upstream: str, *, seed: int) -> Iterator[LossyProxy]:
    with LossyProxy(upstream, seed=seed) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.closing.set()
            proxy.shutdown()
            thread.join(timeout=5)
