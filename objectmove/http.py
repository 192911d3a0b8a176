"""HTTP over a few connections that stay open: no change is sent twice.

``http.client`` connects, and reads the answers. We write each request ourselves, in one piece:
after a request that it refuses, ``http.client`` sends the beginning of that one before the next.
"""

import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from socket import SHUT_RDWR, gaierror, socket
from threading import Event, Lock
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit
from weakref import finalize

import certifi
from urllib3.util import wait_for_read, wait_for_write

#: How long a connection may be idle before we open it afresh.
_IDLE_S = 2.0
#: How long answers may still come after an interrupt.
_GRACE_S = 0.7
#: A request must leave within this time, so that a process that slept doesn't send the rest when it
#: wakes, when the store has already checked the date.
_SEND_S = 5.0
_LATE = "no answer in time"

NOT_SENT = 0
"""The status when nothing left this machine."""
NO_ANSWER = -1
"""The status when no whole answer came."""

Sink = Callable[[bytes], Any]
"""Takes the body of a reply in parts, as they come."""


class Message(NamedTuple):
    """One request; ``target`` is the path with its query.

    Each character of a header's text stands for one byte (Latin-1).
    """

    method: str
    target: str
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Reply(NamedTuple):
    """The answer to one request; ``headers`` has names in small letters.

    ``status`` may be ``NOT_SENT`` or ``NO_ANSWER``.
    """

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    error: str = ""


@dataclass(eq=False, repr=False, kw_only=True)
class Reach:
    """How to reach a server."""

    secure: bool = False
    ca_file: str = ""  # the certificates to trust; certifi's by default
    proxy_url: str = ""  # ``http://[user:password@]host:port``, or "" without a proxy
    connect_s: float = 2.0
    #: The most seconds without a byte of the answer. Without a sink, the answer must be complete
    #: within twice as long.
    read_s: float = 10.0
    connections: int = 64  # the most requests at a time


@dataclass
class _Line:
    http: Any
    lock: Lock
    used_at: float = -_IDLE_S


class Connections:
    """Connections to one host, each with at most one request at a time."""

    def __init__(self, host: str, reach: Reach) -> None:
        # Don't keep ``reach``: it is the bucket, which holds these connections.
        self._read_s = reach.read_s
        self._prefix = ""
        self._headers = {"host": host}
        login = {}
        user, _, proxy = urlsplit(reach.proxy_url).netloc.rpartition("@")
        if user:
            login["proxy-authorization"] = f"Basic {b64encode(unquote_to_bytes(user)).decode()}"
        make: Any = HTTPConnection
        if reach.secure:  # ``ssl.create_default_context`` reads the environment's SSLKEYLOGFILE
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.load_verify_locations(reach.ca_file or certifi.where())
            make = partial(HTTPSConnection, context=tls)
        elif proxy:
            self._prefix = f"http://{host}"
            self._headers |= login
        self._lines: list[_Line] = []
        self._pool = ThreadPoolExecutor(reach.connections)
        for _ in range(reach.connections):
            http = make(proxy or host, timeout=reach.connect_s)
            if proxy and reach.secure:
                http.set_tunnel(host, headers=login)
            finalize(self, http.close)
            self._lines.append(_Line(http, Lock()))

    def exchange(
        self,
        messages: Sequence[Callable[[], Message]],
        take: Callable[[int, Reply], None] = lambda _index, _reply: None,
        *,
        resend: bool = False,
        sink: Sink | None = None,
    ) -> list[Reply]:
        """Send messages, several at a time, until each has its reply; return the replies.

        Parameters
        ----------
        messages : functions that make a message right before it is sent
        take : called with each message's index and reply, as replies come, on another thread, one
            at a time. After an error in ``take``, nothing more is sent
        resend : for reads only: send one again if its connection breaks and it has no ``sink``.
            After a time-out nothing more is sent, so that a silent server costs one time-out
        sink : takes the body in parts; the reply then has none

        Raises
        ------
        KeyboardInterrupt
            After ``take`` was called for every message, within ``_GRACE_S``.
        Exception
            The error that ``take`` raised first.
        """
        waiting = iter(range(len(messages)))
        replies: dict[int, Reply] = {}
        errors: list[BaseException] = []
        halt: list[str] = []  # why nothing more is sent; empty while messages are sent
        turn = Lock()
        ended = Event()

        def work(line: _Line) -> None:
            for index in waiting:
                with line.lock:
                    reply = self._send(line, messages[index], sink, halt)
                    if resend and reply.error == _LATE:
                        halt.append(_LATE)
                    if resend and reply.status == NO_ANSWER and not (sink or halt):
                        reply = self._send(line, messages[index], sink, halt)
                with turn:
                    try:
                        take(index, reply)
                    except BaseException as error:  # noqa: BLE001
                        errors.append(error)
                        halt.append("stopped")
                    replies[index] = reply
            if len(replies) == len(messages):
                ended.set()

        try:
            for line in self._lines[: len(messages) or 1]:
                self._pool.submit(work, line)
            ended.wait()
        except BaseException:
            halt.append("interrupted")
            with suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait
                ended.wait(_GRACE_S)
            for line in self._lines:
                with suppress(TypeError, OSError):
                    socket.shutdown(line.http.sock, SHUT_RDWR)
            # The interrupt may have come before the first line began to work.
            self._pool.submit(work, self._lines[0])
            ended.wait()
            raise
        for error in errors:
            raise error
        return [replies[index] for index in sorted(replies)]

    def _send(
        self,
        line: _Line,
        make: Callable[[], Message],
        sink: Sink | None,
        halt: list[str],
    ) -> Reply:
        """Send one message, never twice; return its reply, even for a failure.

        If ``halt`` has a reason, send nothing. If the server can't be reached, add a reason to it.
        """
        http = line.http
        is_idle = monotonic() - line.used_at >= _IDLE_S
        line.used_at = -_IDLE_S  # until an answer is read to its end
        status = NOT_SENT  # of a failure from here on
        try:
            message = make()
            request = self._write(message)
            # Anything readable is the connection's end, or an answer that nobody asked for.
            if not halt and (is_idle or wait_for_read(http.sock, timeout=0)):
                http.close()
                http.connect()
                http.sock.settimeout(self._read_s)
            if halt:
                raise InterruptedError(halt[0])
            status = NO_ANSWER
            late_at = monotonic() + _SEND_S
            while request:
                wait_for_write(http.sock, _SEND_S)
                if monotonic() > late_at:
                    raise TimeoutError
                request = request[http.sock.send(request[:65536]) :]
            return self._read(line, message.method, sink)
        except BaseException as error:  # noqa: BLE001  # a sink may raise any
            http.close()
            text = " ".join(str(error).split()) or repr(error)
            if isinstance(error, TimeoutError):
                text = _LATE
            if status == NOT_SENT and isinstance(error, TimeoutError | gaierror):
                halt.append(text)
            return Reply(status, error=text)

    def _write(self, message: Message) -> bytes:
        """Return a request's bytes; raise ValueError unless each header is one line of Latin-1."""
        headers = {**self._headers, **message.headers}
        if message.method not in ("GET", "HEAD"):
            headers["content-length"] = str(len(message.body))
        lines = [f"{message.method} {self._prefix}{message.target} HTTP/1.1"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if len(head.splitlines()) != len(lines) + 1:
            raise ValueError("a header has a line break")
        return head + message.body

    def _read(self, line: _Line, method: str, sink: Sink | None) -> Reply:
        """Read an answer to its end; raise ValueError when it can't be trusted."""
        late_at = monotonic() + 2 * self._read_s
        response = HTTPResponse(line.http.sock, method=method)
        response.begin()
        parts: list[bytes] = []
        take = sink or parts.append
        for part in iter(partial(response.read1, 1 << 16), b""):
            take(part)
            if monotonic() > late_at and not sink:
                raise TimeoutError
        is_cut = not response.chunked and response.length != 0
        if is_cut or response.status < 200:
            raise ValueError("the answer has no length, was cut off, or does not come yet")
        if not response.will_close:
            line.used_at = monotonic()
        headers = {name.lower(): text for name, text in response.getheaders()}
        return Reply(response.status, headers, b"".join(parts))
