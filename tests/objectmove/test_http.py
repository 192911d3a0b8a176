"""Requests over raw sockets: a change is sent once, whatever the server does to its connection."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from objectmove import http as http_module
from objectmove.http import NO_ANSWER, NOT_SENT, Connections, Message, Reach, Reply
from tests.support.gateway import wait_until
from tests.support.network import (
    Act,
    Received,
    Server,
    make_answer,
    make_certificates,
    run_server,
)

pytestmark = pytest.mark.process

Told = dict[int, Reply]


def connect(endpoint: str, **changes: Any) -> Connections:
    given: dict[str, Any] = {"connect_s": 5.0, "read_s": 5.0, "connections": 4}
    return Connections(endpoint, Reach(**given | changes))


def ask(http: Connections, *messages: Message, **options: Any) -> Told:
    told: Told = {}

    def take(index: int, reply: Reply) -> None:
        assert index not in told
        told[index] = reply

    http.exchange([lambda m=m: m for m in messages], take, **options)
    assert sorted(told) == list(range(len(messages)))
    return told


def find_resting(http: Connections) -> list[Any]:
    socks = [line.http.sock for line in http._lines if line.http.sock is not None]
    return [sock for sock in socks if not select.select([sock], [], [], 0)[0]]


def gets(count: int) -> list[Message]:
    return [Message("GET", f"/{n}", {"host": "x"}) for n in range(count)]


PUT = Message("PUT", "/put", {"host": "x"}, b"body")
OK = make_answer(b"ok")


def test_a_message_is_sent_as_it_is_and_its_answer_read() -> None:
    with run_server(lambda _: make_answer(b"body", 201, "X-Odd: \xe9t\xe9")) as server:
        headers = {"host": "h", "x-a": "b", "x-name": "đơn".encode().decode("latin-1")}
        message = Message("PUT", "/a%20b?c=d", headers, b"\x00\xff")
        (reply,) = ask(connect(server.endpoint), message).values()
    (sent,) = server.received
    assert (sent.method, sent.target, sent.body) == ("PUT", "/a%20b?c=d", b"\x00\xff")
    assert {name: sent.headers[name] for name in headers} == headers
    assert set(sent.headers) - set(headers) == {"content-length"}
    assert (reply.status, reply.body, reply.error) == (201, b"body", "")
    assert "x-odd" in reply.headers


BROKEN = {
    "closed": Act(then="close"),
    "reset": Act(then="reset"),
    "half a head": Act(b"HTTP/1.1 200 OK\r\ncontent-le", "close"),
    "half a body": Act(make_answer(b"whole")[:-2], "close"),
    "half a chunk": Act(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", "close"),
    "no http": Act(b"SSH-2.0-OpenSSH_9.9\r\n", "close"),
    "no end": Act(b"HTTP/1.1 200 OK\r\n\r\nab", "close"),
}


@pytest.mark.parametrize("act", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_a_change_is_never_sent_twice(act: Act, is_first: bool, method: str) -> None:
    with run_server(lambda r: OK if r.method == "GET" else act) as server:
        http = connect(server.endpoint, connections=1)
        if not is_first:
            ask(http, *gets(1))
        (reply,) = ask(http, Message(method, "/change?secret", {"host": "x"}, b"body")).values()
        assert (reply.status, bool(reply.error)) == (NO_ANSWER, True)
        assert "secret" not in reply.error
        assert ask(http, *gets(1))[0].status == 200
    assert server.targets.count("/change?secret") == 1


def test_a_connection_that_the_server_closed_while_it_rested_is_not_used() -> None:
    with run_server(lambda _: Act(OK, "close")) as server:
        http = connect(server.endpoint, connections=1)
        for _ in range(3):
            assert ask(http, PUT)[0].status == 200
            wait_until(lambda: not find_resting(http), what="the end of the connection")
    assert [r.connection for r in server.received] == [0, 1, 2]


def test_reads_are_sent_again_once_each_when_their_connection_breaks() -> None:
    broken = {"/1", "/3"}

    def answer(request: Received) -> Act | bytes:
        return Act(then="close") if request.target in broken else OK

    with run_server(answer) as server:
        told = ask(connect(server.endpoint, connections=1), *gets(5), resend=True)
    assert [told[n].status for n in range(5)] == [200, NO_ANSWER, 200, NO_ANSWER, 200]
    assert sorted(server.targets) == ["/0", "/1", "/1", "/2", "/3", "/3", "/4"]


def test_a_silent_server_costs_one_time_out() -> None:
    with run_server(lambda _: Act(then="hang")) as server:
        http = connect(server.endpoint, read_s=0.2, connections=2)
        told = ask(http, *gets(50), resend=True)
    assert [told[n].status for n in (0, 1)] == [NO_ANSWER] * 2
    assert {told[n].status for n in range(2, 50)} == {NOT_SENT}
    assert told[0].error == "no answer in time"
    assert len(server.received) == 2


def test_a_refused_port_sends_nothing() -> None:
    with run_server(lambda _: OK) as server:
        pass
    told = ask(connect(server.endpoint), PUT, PUT)
    assert {r.status for r in told.values()} == {NOT_SENT}
    assert told[0].error


@pytest.mark.parametrize("second", [make_answer(b"forged"), b"noise"])
def test_a_second_answer_is_never_taken_for_another_requests(second: bytes) -> None:
    with run_server(lambda r: make_answer(r.target.encode()) + second) as server:
        told = ask(connect(server.endpoint, connections=1), *gets(3))
    assert all(r.body in (b"", b"/%d" % n) for n, r in told.items())


def test_an_answer_that_nobody_asked_for_is_nobodys() -> None:
    with run_server(lambda _: OK) as server:
        http = connect(server.endpoint, connections=1)
        ask(http, PUT)
        server.connections[0].sendall(make_answer(b"forged"))
        wait_until(lambda: not find_resting(http), what="the end of the connection")
        assert ask(http, *gets(1))[0].body == b"ok"
    assert [r.connection for r in server.received] == [0, 1]


def interrupt_when(is_time: Callable[[], bool]) -> None:
    def wait() -> None:
        wait_until(is_time, what="the moment")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def holding_server(*, answers: int) -> Iterator[tuple[Server, threading.Event]]:
    free = threading.Event()

    def answer(request: Received) -> bytes:
        if request.method == "GET" and int(request.target[1:]) >= answers:
            free.wait(10)
        return OK

    with run_server(answer) as server:
        try:
            yield server, free
        finally:
            free.set()


def test_ctrl_c_tells_of_every_message_once_and_sends_nothing_more() -> None:
    told: list[tuple[int, int]] = []
    with holding_server(answers=10) as (server, free):
        http = connect(server.endpoint)
        interrupt_when(lambda: len(server.received) == 14)
        with pytest.raises(KeyboardInterrupt):
            http.exchange(
                [lambda m=m: m for m in gets(100)], lambda i, reply: told.append((i, reply.status))
            )
        # Control came back: what now is answered has no consequence.
        before = list(told)
        free.set()
        assert ask(http, PUT)[0].status == 200
        assert server.targets[14:] == ["/put"]
    assert told == before
    assert sorted(index for index, _ in told) == list(range(100))
    status = dict(told)
    assert [status[n] for n in range(10)] == [200] * 10
    assert sorted(status[n] for n in range(10, 14)) == [NO_ANSWER] * 4
    assert {status[n] for n in range(14, 100)} == {NOT_SENT}


def test_who_sleeps_while_a_body_is_sent_does_not_send_its_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store has checked the date by then, and would let the rest take effect."""
    body = bytes(16 << 20)  # more than the buffers of both sides hold
    slept = threading.Event()

    def wake_late(sock: socket.socket, timeout: float) -> bool:
        """Sleep past the deadline once the buffers are full, and wake when there is room again."""
        if not select.select([], [sock], [], 0.5)[1]:
            monkeypatch.setattr(http_module, "monotonic", lambda: time.monotonic() + 60)
            slept.set()
        return bool(select.select([], [sock], [], timeout)[1])

    monkeypatch.setattr(http_module, "wait_for_write", wake_late)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = connect(f"127.0.0.1:{listener.getsockname()[1]}", connections=1)
        told: Told = {}
        sender = threading.Thread(
            target=lambda: told.update(ask(http, Message("PUT", "/put", {}, body)))
        )
        sender.start()
        connection, _ = listener.accept()
        with connection:
            assert slept.wait(timeout=20)
            received = 0
            while part := connection.recv(1 << 20):
                received += len(part)
        sender.join(timeout=20)
    assert told[0].status == NO_ANSWER
    assert 0 < received < len(body)


def test_tls_trusts_the_named_ca_and_the_host_of_its_certificate_only(tmp_path: Path) -> None:
    ca_file, context = make_certificates(tmp_path)
    with run_server(lambda _: OK, tls=context) as server:
        http = connect(server.endpoint, secure=True, ca_file=str(ca_file))
        assert [r.status for r in ask(http, *gets(10)).values()] == [200] * 10
        other_host = server.endpoint.replace("127.0.0.1", "localhost")
        untrusted = connect(server.endpoint, secure=True)
        strange = connect(other_host, secure=True, ca_file=str(ca_file))
        for http in (untrusted, strange):
            (reply,) = ask(http, PUT).values()
            assert (reply.status, "certificate" in reply.error) == (NOT_SENT, True)
    assert "/put" not in server.targets


def test_a_line_break_in_a_header_sends_nothing() -> None:
    with run_server(lambda _: OK) as server:
        for text in ("b\r\nx-c: d", "b\n", "b\r"):
            bad = Message("PUT", "/bad", {"host": "x", "x-a": text})
            told = ask(connect(server.endpoint, connections=1), bad, PUT)
            assert [told[n].status for n in range(2)] == [NOT_SENT, 200]
    assert server.targets == ["/put"] * 3
