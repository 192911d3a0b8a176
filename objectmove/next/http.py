"""HTTP over a few connections that stay open: no change is sent twice.

By itself, ``aiohttp`` sends a request again when its connection breaks: a change could take effect
twice. So a middleware raises an error after which ``aiohttp`` does not send again. The reply says
whether the request was sent and answered, and the caller decides what to do.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from typing import Any

import aiohttp
import certifi
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from .message import Message, Reach, Reply, Sink

#: How long an idle connection stays open.
_IDLE_S = 2.0
#: How long answers may still come after an interrupt.
_GRACE_S = 0.7
_LATE = "no answer in time"
#: Headers that aiohttp would add by itself: they are sent only if a message names them.
_OWN_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
#: With this text, servers in Go, and nginx, answer a plain request where they expect TLS.
_WANTS_TLS = re.compile(rb"HTTP request (was sent )?to (an )?HTTPS")
_LENGTH_HEADERS = {"content-length", "transfer-encoding"}
#: The one loop that serves all connections; empty before the first request.
_loops: list[asyncio.AbstractEventLoop] = []
_starting = threading.Lock()


class _BrokenError(Exception):
    """A connection broke; aiohttp does not know this error, and so does not send again."""


class _SpoiltError(Exception):
    """The connection cannot be used: it is closing, or holds an answer that nobody asked for."""


class _Request(aiohttp.ClientRequest):
    """A request that knows whether it was sent: ``protocol`` is None until then."""

    protocol: ResponseHandler | None = None

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send the request; refuse a connection that is closing, or holds an answer already."""
        protocol = conn.protocol
        # ``should_close`` is also true when bytes of an answer have come on the connection.
        if protocol is None or protocol.should_close:
            raise _SpoiltError
        self.protocol = protocol
        return await super().send(conn)


class Connections:
    """Connections to one server, ``host:port``."""

    def __init__(self, host: str, reach: Reach) -> None:
        self.reach = reach
        self._url = f"{'https' if reach.secure else 'http'}://{host}"
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if reach.secure:  # ``ssl.create_default_context`` reads the environment's SSLKEYLOGFILE
            self._tls.load_verify_locations(reach.ca_file or certifi.where())

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
        take : called with the index of a message and its reply, as replies come, on another thread.
            If ``take`` raises an error, the messages that still wait are not sent
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
            The error that ``take`` raised.
        """
        waiting = deque(range(len(messages)))
        workers: list[asyncio.Task[None]] = []
        replies = [Reply(Reply.NOT_SENT)] * len(messages)
        why_not_sent = ""  # why nothing more is sent; empty while messages are sent

        async def work() -> None:
            """Send the messages that wait, one after the other."""
            nonlocal why_not_sent
            try:
                while waiting:
                    index = waiting.popleft()
                    if why_not_sent:
                        reply = Reply(Reply.NOT_SENT, error=why_not_sent)
                    else:
                        reply = await self._send(messages[index], resend, sink)
                    # Do not wait for each message when a server cannot be reached, or, in reads,
                    # when it is silent.
                    if reply.error == _LATE and (resend or reply.status == Reply.NOT_SENT):
                        why_not_sent = _LATE
                    replies[index] = reply
                    take(index, reply)
            except BaseException:
                waiting.clear()
                raise

        async def serve() -> None:
            """Send all messages, over several connections at once."""
            workers.extend(asyncio.create_task(work()) for _ in messages[: self.reach.connections])
            for error in await asyncio.gather(*workers, return_exceptions=True):
                if error is not None:
                    raise error

        async def stop(grace_s: float) -> None:
            """Wait for the workers, then cancel them; give ``NOT_SENT`` to messages that wait."""
            with suppress(TimeoutError):  # the time-out cancels the workers
                async with asyncio.timeout(grace_s):
                    await asyncio.gather(*workers, return_exceptions=True)
            await work()  # sends nothing: ``why_not_sent`` is set by now

        try:
            _run(serve())
        except KeyboardInterrupt:
            why_not_sent = "interrupted"
            with suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait
                _run(stop(_GRACE_S))
            _run(stop(0))  # cancels the workers that still wait for an answer
            raise
        return replies

    async def _send(self, make: Callable[[], Message], resend: bool, sink: Sink | None) -> Reply:
        """Send one message; return its reply. A failure is a reply, too, and raises nothing."""
        attempts: list[_Request] = []
        connect_s = self.reach.connect_s
        read_s = self.reach.read_s
        whole_s = connect_s + read_s if sink is None else None

        async def send_once(request: Any, send: aiohttp.ClientHandlerType) -> Any:
            """Send a request; replace every error after which aiohttp would send it again."""
            attempts.append(request)
            while True:
                try:
                    return await send(request)
                except _SpoiltError:
                    continue  # aiohttp closed that connection: use another one
                except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
                    raise _BrokenError(_describe_failure(error)) from None

        try:
            message = make()
            async with self._session.request(
                message.method,
                URL(f"{self._url}{message.target}", encoded=True),
                headers=_decode(message.headers),
                data=BytesIO(message.body) if message.body else None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(whole_s, connect_s, sock_read=read_s),
                middlewares=[send_once],
            ) as response:
                return await _read(response, attempts[0], sink)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # a sink may raise any
            is_late_or_ended = isinstance(error, TimeoutError | asyncio.CancelledError)
            is_sent = any(attempt.protocol is not None for attempt in attempts)
            if resend and sink is None and is_sent and not is_late_or_ended:
                return await self._send(make, False, None)
            status = Reply.NO_ANSWER if is_sent else Reply.NOT_SENT
            return Reply(status, error=_describe_failure(error))

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        """The session of aiohttp, which must be made in the loop's thread."""
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S, ssl=self._tls),
            proxy=self.reach.proxy_url or None,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_OWN_HEADERS,
            auto_decompress=False,
            request_class=_Request,
        )
        weakref.finalize(self, _close, session)
        return session


def _decode(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as texts from which aiohttp, which encodes in UTF-8, makes the same bytes.

    Raises
    ------
    UnicodeDecodeError
        When a header's bytes are not UTF-8.
    """
    return {name: text.encode("latin-1").decode() for name, text in headers.items()}


async def _read(response: aiohttp.ClientResponse, request: _Request, sink: Sink | None) -> Reply:
    """Read a response to its end.

    Raises
    ------
    ValueError
        When the response cannot be trusted; says why.
    """
    headers = {}
    for name, text in response.raw_headers:
        headers[name.decode("latin-1").lower()] = text.decode("latin-1")
    if response.status == 200 and sink is not None:
        async for part in response.content.iter_any():
            sink(part)
    body = await response.read()
    if request.protocol is not None and len(request.protocol) > 0:
        raise ValueError("a second answer came on this connection, so neither can be used")
    if response.status == 400 and _WANTS_TLS.search(body):
        raise ValueError("this port wants TLS, and the request came without")
    has_no_body = request.method == "HEAD" or response.status in (204, 304)
    if not has_no_body and not _LENGTH_HEADERS & headers.keys():
        raise ValueError("the answer has no length, so it may be cut off")
    return Reply(response.status, headers, body)


def _describe_failure(error: BaseException) -> str:
    """Say what broke. aiohttp's own text of a proxy's error is left out: it has the signed URL."""
    if isinstance(error, TimeoutError):
        return _LATE
    if isinstance(error, asyncio.CancelledError):
        return "interrupted"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before a whole answer"
    return " ".join(str(error.__cause__ or error).split()) or repr(error)


def _run(job: Coroutine[Any, Any, None]) -> None:
    """Run a job in the loop's thread, and wait for its end."""
    asyncio.run_coroutine_threadsafe(job, _get_loop()).result()


def _get_loop() -> asyncio.AbstractEventLoop:
    """Return the loop that serves all connections; the first call starts it in its own thread."""
    with _starting:
        if not _loops:
            _loops.append(asyncio.new_event_loop())
            threading.Thread(target=_loops[0].run_forever, daemon=True, name="objectmove").start()
        return _loops[0]


def _close(session: aiohttp.ClientSession) -> None:
    """Close a session in the loop's thread, without waiting."""
    asyncio.run_coroutine_threadsafe(session.close(), _loops[0])
