"""HTTP over a few connections that stay open: no change is sent twice.

``http.client`` connects, and reads the answers. A request is written here, in one piece: after a
request that it refuses, ``http.client`` sends what it has of that one before the next. The reply
says whether the request was sent and answered, and the caller decides what to do.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from io import BufferedReader
from socket import SHUT_RDWR, SocketIO, gaierror, socket
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit
from weakref import finalize

import certifi

from .message import Message, Reach, Reply, Sink

#: How long a connection may have been idle.
_IDLE_S = 2.0
#: How long answers may still come after an interrupt.
_GRACE_S = 0.7
_LATE = "no answer in time"


class _Link(BufferedReader):
    """An open connection; what the server sends after an answer stays in its buffer."""

    used_at = 0.0

    def __init__(self, sock: socket) -> None:
        super().__init__(SocketIO(sock, "r"))
        self.sock = sock
        # Not ``__del__``: in a circle of references, the socket may be collected before it.
        finalize(self, sock.close)

    def close(self) -> None:
        """Do nothing: each answer closes what it is read from."""

    def look(self) -> bytes | None:
        """Return a byte that nobody asked for; None when none came, empty at the end."""
        self.sock.settimeout(0)
        try:
            return self.read(1)
        except ssl.SSLWantReadError:
            return None
        except OSError:
            return b""


#: An ``HTTPConnection`` whose socket is None or a ``_Link``, and what must be held to use it.
_Line = tuple[Any, Lock]


class Connections:
    """Connections to one server, ``host:port``."""

    def __init__(self, host: str, reach: Reach) -> None:
        # Not ``reach`` itself: a bucket is one, and holds these connections.
        self._read_s = reach.read_s
        self._whole_s = reach.connect_s + reach.read_s
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
        for _ in range(reach.connections):
            http = make(proxy or host, timeout=reach.connect_s)
            if proxy and reach.secure:
                http.set_tunnel(host, headers=login)
            self._lines.append((http, Lock()))

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
        take : called with the index of a message and its reply, as replies come, on another thread,
            one at a time. If ``take`` raises an error, the messages that still wait are not sent
        resend : for reads only: a read is sent once more when its connection breaks, unless there
            is a ``sink``. After a time-out nothing more is sent, so that a silent server costs one
            time-out
        sink : takes the body of a 200 in parts; the reply then has no body

        Raises
        ------
        KeyboardInterrupt
            After ``take`` was called for every message: with ``NOT_SENT`` for a message that was
            not sent, with ``NO_ANSWER`` for one that was not answered within ``_GRACE_S``. Nothing
            is sent after that.
        Exception
            The error that ``take`` raised first.
        """
        waiting = deque(range(len(messages)))
        replies: dict[int, Reply] = {}
        errors: list[BaseException] = []
        halt: list[str] = []  # why nothing more is sent; empty while messages are sent
        turn = Lock()
        ended = Event()

        def work(http: Any, lock: Lock) -> None:
            """Send the messages that wait, one after the other."""
            with suppress(IndexError):
                while True:
                    index = waiting.popleft()
                    with lock:
                        reply = self._send(http, messages[index], sink, halt)
                        if resend and reply.error == _LATE:
                            halt.append(_LATE)
                        if resend and reply.status == Reply.NO_ANSWER and not (sink or halt):
                            reply = self._send(http, messages[index], sink, halt)
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
                Thread(target=work, args=line, daemon=True).start()
            ended.wait()
        except BaseException:
            halt.append("interrupted")
            with suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait
                ended.wait(_GRACE_S)
            for http, _ in self._lines:
                with suppress(AttributeError, OSError):
                    socket.shutdown(http.sock.sock, SHUT_RDWR)
            # The interrupt may have come before the first thread was started.
            Thread(target=work, args=self._lines[0], daemon=True).start()
            ended.wait()
            raise
        for error in errors:
            raise error
        return [replies[index] for index in sorted(replies)]

    def _send(
        self,
        http: Any,
        make: Callable[[], Message],
        sink: Sink | None,
        halt: list[str],
    ) -> Reply:
        """Send one message once; return its reply. A failure is a reply, too."""
        status = Reply.NOT_SENT
        try:
            message = make()
            request = self._write(message)
            link = http.sock
            is_fresh = link and monotonic() - link.used_at < _IDLE_S and link.look() is None
            if not (is_fresh or halt):
                http.close()
                http.connect()
                link = _Link(http.sock)
                http.sock = link
            if halt:
                raise InterruptedError
            link.sock.settimeout(self._read_s)
            status = Reply.NO_ANSWER
            link.sock.sendall(request)
            return self._read(link, message.method, sink)
        except BaseException as error:  # noqa: BLE001  # a sink may raise any
            http.close()
            text = " ".join(str(error).split()) or repr(error)
            if isinstance(error, TimeoutError):
                text = _LATE
            if halt:
                text = halt[-1]
            if status == Reply.NOT_SENT and isinstance(error, TimeoutError | gaierror):
                halt.append(text)
            return Reply(status, error=text)

    def _write(self, message: Message) -> bytes:
        """Return a request as it is sent.

        Raises
        ------
        ValueError
            When it cannot be sent: it must be valid UTF-8, without more lines than headers.
        """
        headers = {**self._headers, **message.headers}
        if message.method not in ("GET", "HEAD"):
            headers["content-length"] = str(len(message.body))
        lines = [f"{message.method} {self._prefix}{message.target} HTTP/1.1"]
        lines += [f"{name}: {text}" for name, text in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        head.decode()
        if len(head.splitlines()) != len(lines) + 1:
            raise ValueError("a header has a line break")
        return head + message.body

    def _read(self, link: _Link, method: str, sink: Sink | None) -> Reply:
        """Read an answer to its end.

        Raises
        ------
        ValueError
            When the answer cannot be trusted; says why.
        """
        late_at = monotonic() + self._whole_s
        while True:
            response = HTTPResponse(link.sock, method=method)
            response.fp = link
            response.begin()
            if response.status >= 200:  # others are informational, and the answer follows
                break
        parts: list[bytes] = []
        take = sink if sink and response.status == 200 else parts.append
        for part in iter(partial(response.read1, 1 << 16), b""):
            take(part)
            if monotonic() > late_at and not sink:
                raise TimeoutError
        if not response.chunked and response.length != 0:
            raise ValueError("the answer has no length, or was cut off")
        if not response.will_close:
            link.used_at = monotonic()
        headers = {name.lower(): text for name, text in response.getheaders()}
        return Reply(response.status, headers, b"".join(parts))
