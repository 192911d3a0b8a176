"""HTTP over a few connections that stay open: every request is sent exactly once.

A library that is made for users sends a request again when a connection breaks under it. For a
request that changes something that is a second effect, so this one does not: what happened to the
one request is told, and the caller decides. ``httptools`` parses, ``asyncio`` carries.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import httptools

Sink = Callable[[bytes], Any]
Start = Callable[[Callable[[], None]], None]
"""Called with what writes the request; calls it, unless nobody waits for it any more."""

_IDLE_S = 2.0
_GRACE_S = 0.7
_LATE = "no answer in time"
_BROKEN = (OSError, httptools.HttpParserError)
_loops: list[asyncio.AbstractEventLoop] = []
_starting = threading.Lock()


@dataclass(frozen=True, slots=True)
class Message:
    """One request; ``target`` is the path with its query. Header texts are bytes as Latin-1."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: header names in small letters.

    ``status`` is ``NOT_SENT`` when nothing left this machine and ``NO_ANSWER`` when no whole answer
    came; ``error`` says why.
    """

    NOT_SENT = 0
    NO_ANSWER = -1

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""


@dataclass(eq=False)
class Connections:
    """Connections to one server, and the thread that serves them.

    Parameters
    ----------
    host, secure, ca_file : the server as ``host:port``; TLS, and whom to trust (default: certifi)
    proxy_url : ``http://[user:password@]host:port``; empty: none
    connect_s, read_s : the most that connecting, and waiting for the next bytes, may take
    count : connections at a time
    """

    host: str
    secure: bool
    ca_file: str
    proxy_url: str
    connect_s: float
    read_s: float
    count: int

    def __post_init__(self) -> None:
        self._host = urlsplit(f"//{self.host}")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if self.secure else None
        if self._tls:  # ``ssl.create_default_context`` reads the environment's SSLKEYLOGFILE
            self._tls.load_verify_locations(self.ca_file or certifi.where())
        self._port = self._host.port or (443 if self.secure else 80)
        self._proxy = urlsplit(self.proxy_url) if self.proxy_url else None
        self._idle: list[_Connection] = []
        weakref.finalize(self, _close, self._idle)

    def exchange(
        self,
        messages: Sequence[Callable[[], Message]],
        take: Callable[[int, Reply], None],
        *,
        resend: bool = False,
        sink: Sink | None = None,
    ) -> None:
        """Send messages, several at a time, until each has its reply.

        Parameters
        ----------
        messages : made right before they are sent
        take : called with the index of a message and its reply, as they come, on another thread;
            nothing more is sent after it raised
        resend : of reads only: once more, when a connection that was open before breaks; and
            after a time-out the others are not sent, so that a silent server costs only one
        sink : takes the body of a 200 in parts, instead of the reply

        Raises
        ------
        KeyboardInterrupt
            After ``take`` was called for every message: what was not sent is ``NOT_SENT``, what
            was not answered within a moment ``NO_ANSWER``. Nothing is sent after that.
        Exception
            What ``take`` raised.
        """
        waiting = deque(range(len(messages)))
        open_, sent, lock = set(waiting), set[int](), threading.RLock()

        def pop() -> int | None:  # at once: Ctrl-C may clear it between a look and a pop
            with suppress(IndexError):
                return waiting.popleft()
            return None

        def finish(index: int, reply: Reply) -> None:
            with lock:
                if index in open_:
                    open_.discard(index)
                    take(index, reply)

        def send(index: int, write: Callable[[], None]) -> None:
            with lock:
                if index not in open_:  # control went back meanwhile
                    raise ConnectionAbortedError("interrupted")
                sent.add(index)
                write()

        async def serve() -> None:
            while (index := pop()) is not None:
                start = partial(send, index)
                reply = await self._send(messages[index], start, resend=resend, sink=sink)
                try:
                    finish(index, reply)
                    if reply.error == _LATE and (resend or reply.status == Reply.NOT_SENT):
                        while (index := pop()) is not None:
                            finish(index, Reply(Reply.NOT_SENT, error=_LATE))
                except BaseException:
                    waiting.clear()
                    raise

        async def serve_all() -> None:
            count = min(self.count, len(messages))
            ends = await asyncio.gather(*(serve() for _ in range(count)), return_exceptions=True)
            for error in filter(None, ends):
                raise error

        ended: list[Future[None]] = []
        try:
            ended.append(asyncio.run_coroutine_threadsafe(serve_all(), _get_loop()))
            ended[0].result()
        except KeyboardInterrupt:
            waiting.clear()
            with suppress(KeyboardInterrupt):  # who presses twice does not wait
                wait(ended, timeout=_GRACE_S)
            with lock:
                for index in sorted(open_):
                    status = Reply.NO_ANSWER if index in sent else Reply.NOT_SENT
                    finish(index, Reply(status, error="interrupted"))
            raise

    async def _send(
        self, make: Callable[[], Message], start: Start, *, resend: bool, sink: Sink | None
    ) -> Reply:
        try:
            message = make()
            content = self._encode(message)
            connection = await self._take_connection()
        except (*_BROKEN, ValueError) as error:
            return Reply(Reply.NOT_SENT, error=_say(error))
        is_first = not connection.uses
        try:
            reply = await connection.send(message.method, content, start, sink)
        except _BROKEN as error:
            connection.close()
            # What a sink has begun to take is not begun again.
            if resend and not is_first and sink is None and not isinstance(error, TimeoutError):
                return await self._send(make, start, resend=False, sink=None)
            return Reply(Reply.NO_ANSWER, error=_say(error))
        if connection.is_open:
            self._idle.append(connection)
        return reply

    async def _take_connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_rested():
                return connection
            connection.close()
        at, tls = (self._proxy, None) if self._proxy else (self._host, self._tls)
        port = (at.port or 80) if self._proxy else self._port
        async with asyncio.timeout(self.connect_s):
            streams = await asyncio.open_connection(at.hostname, port, ssl=tls)
            connection = _Connection(*streams, self.read_s)
            if self._proxy and self._tls:
                try:
                    await self._open_tunnel(connection)
                    await streams[1].start_tls(self._tls, server_hostname=self._host.hostname)
                except BaseException:
                    connection.close()
                    raise
        return connection

    async def _open_tunnel(self, connection: _Connection) -> None:
        to = f"{self._host.hostname}:{self._port}"
        head = f"CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n{self._authorize_proxy()}\r\n"
        reply = await connection.send("CONNECT", head.encode("latin-1"), lambda write: write())
        if reply.status != 200:
            raise ConnectionError(f"the proxy answered {reply.status}")
        connection.uses = 0

    def _authorize_proxy(self) -> str:
        if not self._proxy or not self._proxy.username:
            return ""
        word = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return f"proxy-authorization: Basic {base64.b64encode(word.encode()).decode()}\r\n"

    def _encode(self, message: Message) -> bytes:
        target, extra = message.target, ""
        if self._proxy and not self._tls:
            target, extra = f"http://{self._host.netloc}{target}", self._authorize_proxy()
        lines = "".join(f"{name}: {text}\r\n" for name, text in message.headers.items())
        if message.body or message.method in ("PUT", "POST"):
            extra += f"content-length: {len(message.body)}\r\n"
        head = f"{message.method} {target} HTTP/1.1\r\n{lines}{extra}\r\n"
        return head.encode("latin-1") + message.body


class _Connection:
    """One connection: one message at a time. ``httptools`` calls the ``on_…`` methods."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, read_s: float
    ) -> None:
        self._reader, self._writer, self._read_s = reader, writer, read_s
        self.uses, self.is_open, self._rested_at = 0, True, 0.0

    def is_rested(self) -> bool:
        """Tell whether it is young, and neither closed nor sent something that nobody asked for."""
        is_quiet = not (self._reader.at_eof() or self._reader._buffer)  # type: ignore[attr-defined]
        is_young = time.monotonic() - self._rested_at < _IDLE_S
        return self.is_open and is_quiet and is_young and not self._writer.is_closing()

    async def send(
        self, method: str, content: bytes, start: Start, sink: Sink | None = None
    ) -> Reply:
        """Send one request, by ``start``, and read its whole answer."""
        self.is_open, self._is_done = False, False
        self._ends_with_head = method in ("HEAD", "CONNECT")
        self._body, self._sink = bytearray(), sink
        self._parser = httptools.HttpResponseParser(self)
        start(lambda: self._writer.write(content))
        async with asyncio.timeout(self._read_s) as timer:
            while not self._is_done:
                data = await self._reader.read(1 << 18)
                if not data:
                    raise ConnectionResetError("the connection was closed before a whole answer")
                with suppress(httptools.HttpParserUpgrade):
                    self._parser.feed_data(data)
                if sink is not None:
                    timer.reschedule(asyncio.get_running_loop().time() + self._read_s)
        self.uses, self.is_open = self.uses + 1, self._is_kept
        self._rested_at = time.monotonic()
        if not self.is_open and method != "CONNECT":
            self.close()
        return Reply(self._status, self._headers, bytes(self._body))

    def close(self) -> None:
        self.is_open = False
        self._writer.close()

    def on_message_begin(self) -> None:
        if self._is_done:
            raise ValueError("two answers: who knows which is whose")
        self._headers: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        self._is_kept = self._parser.should_keep_alive()  # not known any more afterwards
        self._is_done = self._ends_with_head and self._status >= 200

    def on_body(self, body: bytes) -> None:
        if self._sink is not None and self._status == 200:
            self._sink(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        self._is_done = self._status >= 200  # else the answer itself comes after it


def _say(error: Exception) -> str:
    return str(error) or (_LATE if isinstance(error, TimeoutError) else repr(error))


def _get_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that serves all connections, in a thread of its own."""
    with _starting:
        if not _loops:
            _loops.append(asyncio.new_event_loop())
            serve = _loops[0].run_forever
            threading.Thread(target=serve, daemon=True, name="objectmove").start()
        return _loops[0]


def _close(idle: list[_Connection]) -> None:
    for connection in idle:
        _loops[0].call_soon_threadsafe(connection.close)
