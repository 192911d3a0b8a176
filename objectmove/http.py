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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import httptools

__all__ = ["Connections", "Message", "Reply"]

_IDLE_S = 2.0
_GRACE_S = 0.7
_MAX_BODY = 256 * 1024 * 1024


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


class Connections:
    """Connections to one server, and the thread that serves them.

    Parameters
    ----------
    host, secure, ca_file : the server as ``host:port``; TLS, and whom to trust (default: certifi)
    proxy_url : ``http://[user:password@]host:port``; empty: none
    connect_s, read_s : the most that connecting, and waiting for the next bytes, may take
    count : connections at a time
    """

    def __init__(
        self,
        host: str,
        *,
        secure: bool,
        ca_file: str,
        proxy_url: str,
        connect_s: float,
        read_s: float,
        count: int,
    ) -> None:
        self._host = urlsplit(f"//{host}", "https" if secure else "http")
        self._port = self._host.port or (443 if secure else 80)
        self._tls = (
            ssl.create_default_context(cafile=ca_file or certifi.where()) if secure else None
        )
        self._proxy = urlsplit(proxy_url) if proxy_url else None
        self._connect_s, self._read_s, self._count = connect_s, read_s, count
        self._idle: list[_Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def exchange(
        self,
        messages: Sequence[Callable[[], Message]],
        take: Callable[[int, Reply], None],
        *,
        resend: bool = False,
        sink: Callable[[bytes], Any] | None = None,
    ) -> None:
        """Send messages, several at a time, until each has its reply.

        Parameters
        ----------
        messages : made right before they are sent
        take : called with the index of a message and its reply, as they come, on another thread;
            nothing more is sent after it raised
        resend : of reads only: once more, when a connection that was open before breaks
        sink : takes the body in parts, instead of the reply

        Raises
        ------
        KeyboardInterrupt
            After ``take`` was called for every message: what was not sent is ``NOT_SENT``, what
            was not answered within a moment ``NO_ANSWER``. Nothing is sent after that.
        Exception
            What ``take`` raised.
        """
        work = _Work(messages, take, resend, sink)
        ended = asyncio.run_coroutine_threadsafe(self._exchange(work), self._start())
        try:
            ended.result()
        except KeyboardInterrupt:
            work.stop()
            with suppress(TimeoutError):
                ended.result(timeout=_GRACE_S)
            work.abandon()
            raise
        if work.error is not None:
            raise work.error

    def _start(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True, name="objectmove").start()
        return self._loop

    async def _exchange(self, work: _Work) -> None:
        count = min(self._count, len(work.messages))
        if count == 1:
            await self._serve(work)
        else:
            await asyncio.gather(*(self._serve(work) for _ in range(count)))

    async def _serve(self, work: _Work) -> None:
        """Send what waits over one connection, and over another one when it breaks."""
        while work.waiting:
            index = work.waiting.popleft()
            try:
                connection = await self._take_connection()
            except (OSError, ssl.SSLError, ValueError, httptools.HttpParserError) as error:
                work.finish(index, Reply(Reply.NOT_SENT, error=_say(error)))
                continue
            await connection.serve(work, index, self._encode)
            if connection.is_reusable:
                connection.rested_at = time.monotonic()
                self._idle.append(connection)
            else:
                connection.close()

    async def _take_connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed and time.monotonic() - connection.rested_at < _IDLE_S:
                return connection
            connection.close()
        async with asyncio.timeout(self._connect_s):
            return await self._connect()

    async def _connect(self) -> _Connection:
        loop, host = asyncio.get_running_loop(), self._host.hostname or ""
        at = self._proxy or self._host
        port = (self._proxy.port or 80) if self._proxy else self._port
        tls = None if self._proxy else self._tls
        transport, connection = await loop.create_connection(
            lambda: _Connection(self._read_s), at.hostname or "", port, ssl=tls
        )
        if self._proxy and self._tls:
            line = f"CONNECT {host}:{self._port} HTTP/1.1\r\nHost: {host}:{self._port}\r\n"
            head = f"{line}{self._authorize_proxy()}\r\n".encode("latin-1")
            replies: list[Reply] = []
            work = _Work([lambda: Message("CONNECT", "")], lambda _, r: replies.append(r))
            work.waiting.clear()
            await connection.serve(work, 0, lambda _: head)
            if replies[0].status != 200:
                raise ConnectionError(f"the proxy answered {replies[0].status}")
            secured = await loop.start_tls(transport, connection, self._tls, server_hostname=host)
            connection.connection_made(secured)
        return connection

    def _authorize_proxy(self) -> str:
        if not self._proxy or not self._proxy.username:
            return ""
        word = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return f"Proxy-Authorization: Basic {base64.b64encode(word.encode()).decode()}\r\n"

    def _encode(self, message: Message) -> bytes:
        target, extra = message.target, ""
        if self._proxy and not self._tls:
            target, extra = f"http://{self._host.netloc}{target}", self._authorize_proxy()
        lines = "".join(f"{name}: {text}\r\n" for name, text in message.headers.items())
        if message.body or message.method in ("PUT", "POST"):
            extra += f"content-length: {len(message.body)}\r\n"
        head = f"{message.method} {target} HTTP/1.1\r\n{lines}{extra}\r\n"
        return head.encode("latin-1") + message.body


class _Work:
    """The messages of one exchange: each index is finished exactly once."""

    def __init__(
        self,
        messages: Sequence[Callable[[], Message]],
        take: Callable[[int, Reply], None],
        resend: bool = False,
        sink: Callable[[bytes], Any] | None = None,
    ) -> None:
        self.messages = messages
        self.waiting = deque(range(len(messages)))
        self.sink = sink
        self.error: Exception | None = None
        self._take = take
        self._resend = resend
        self._open = set(self.waiting)
        self._unsent: set[int] = set()
        self._lock = threading.Lock()

    def finish(self, index: int, reply: Reply) -> None:
        with self._lock:
            if index not in self._open:
                return
            self._open.discard(index)
            try:
                self._take(index, reply)
            except Exception as error:  # noqa: BLE001  # raised again by ``exchange``
                self.error = self.error or error
                self.waiting.clear()

    def break_off(self, index: int, reply: Reply, *, is_first: bool) -> None:
        """Finish a message whose connection broke, or have it sent again where that is allowed."""
        if self._resend and not is_first:
            self._resend = False
            self.waiting.append(index)
        else:
            self.finish(index, reply)

    def stop(self) -> None:
        self._unsent = set(self.waiting)
        self.waiting.clear()

    def abandon(self) -> None:
        for index in sorted(self._open):
            status = Reply.NOT_SENT if index in self._unsent else Reply.NO_ANSWER
            self.finish(index, Reply(status, error="interrupted"))


class _Connection(asyncio.Protocol):
    """One connection: one message at a time."""

    def __init__(self, read_s: float) -> None:
        self._read_s = read_s
        self.is_closed = self.is_reusable = False
        self.rested_at = 0.0
        self._sent = 0
        self._work: _Work | None = None

    async def serve(self, work: _Work, index: int, encode: Callable[[Message], bytes]) -> None:
        """Send one message, then what waits, until nothing does or the connection ends."""
        loop = asyncio.get_running_loop()
        self._work, self._encode, self._ended = work, encode, loop.create_future()
        self._send(index)
        try:
            while not self._ended.done():
                left = self._deadline - loop.time()
                if left <= 0:
                    self._fail(TimeoutError(f"no answer within {self._read_s:g} s"))
                await asyncio.wait([self._ended], timeout=max(0.0, left))
        finally:
            self._work = None

    def close(self) -> None:
        self.is_closed = True
        self._transport.close()

    def _send(self, index: int) -> None:
        assert self._work is not None  # noqa: S101
        self._index = index
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self.is_reusable = False
        self._deadline = asyncio.get_running_loop().time() + self._read_s
        message = self._work.messages[index]()
        self._ends_with_head = message.method in ("HEAD", "CONNECT")
        if self.is_closed:
            self._fail(ConnectionResetError("the connection was closed"))
        else:
            self._transport.write(self._encode(message))

    def _fail(self, error: Exception) -> None:
        self.is_closed = True
        if self._work is not None and not self._ended.done():
            reply = Reply(Reply.NO_ANSWER, error=_say(error))
            self._work.break_off(self._index, reply, is_first=self._sent == 0)
            self._ended.set_result(None)

    def _finish(self) -> None:
        if self._work is None or self._ended.done():
            return
        self._sent += 1
        self.is_reusable = self._parser.should_keep_alive() and not self.is_closed
        reply = Reply(self._parser.get_status_code(), self._headers, b"".join(self._parts))
        self._work.finish(self._index, reply)
        if self.is_reusable and self._work.waiting:
            # the parser is in the middle of a call: not before it is done
            self._next = True
        else:
            self._ended.set_result(None)

    # --- asyncio ---

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._work is None or self._ended.done():
            self.is_closed = True  # an answer that nobody asked for
            return
        self._next = False
        self._deadline = asyncio.get_running_loop().time() + self._read_s
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._finish()
        except httptools.HttpParserError as error:
            self._fail(error)
        if self._next:
            if self._work.waiting:
                self._send(self._work.waiting.popleft())
            else:
                self._ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("the connection was closed before an answer"))

    # --- httptools ---

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._ends_with_head:
            self._finish()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._work is not None and self._work.sink is not None:
            self._work.sink(body)
        elif self._size <= _MAX_BODY:
            self._parts.append(body)
        else:
            raise ValueError("the answer is too large")

    def on_message_complete(self) -> None:
        if not self._ends_with_head:
            self._finish()


def _say(error: Exception) -> str:
    return str(error) or (
        "no connection in time" if isinstance(error, TimeoutError) else repr(error)
    )
