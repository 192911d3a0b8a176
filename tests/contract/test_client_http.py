"""HttpClient: every way in which an answer can be wrong becomes one error of the tree."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fulfillment.clients.http_systems import SupportClient
from runbook_lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotFoundError,
)


def make_client(server: HTTPServer, timeout_s: float = 5) -> SupportClient:
    return SupportClient(server.url_for("").rstrip("/"), timeout_s=timeout_s)


@contextmanager
def raw_server(*pieces: bytes, pause_s: float = 0.0, hang: bool = False) -> Iterator[str]:
    """Answer one connection with exact bytes, piece by piece; then close, or hang."""
    stop = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    try:
                        connection.sendall(piece)
                    except OSError:
                        return
                    if stop.wait(pause_s):
                        return
                if hang:
                    stop.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join(10)


def closed_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AccessDeniedError),
        (404, NotFoundError),
        (500, BadAnswerError),
        (301, BadAnswerError),
    ],
)
def test_each_status_has_its_error(
    httpserver: HTTPServer, status: int, kind: type[ClientError]
) -> None:
    httpserver.expect_request("/a").respond_with_data("what went wrong", status)
    with pytest.raises(kind, match="what went wrong" if status >= 400 and status != 301 else "301"):
        make_client(httpserver).get("/a", object)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>log in</html>", "text/html"),
        (b'{"a": ', "application/json"),
        (b"[" * 200_000, "application/json"),
    ],
)
def test_what_is_not_json_is_a_bad_answer(httpserver: HTTPServer, body: bytes, kind: str) -> None:
    httpserver.expect_request("/a").respond_with_data(body, content_type=kind)
    with pytest.raises(BadAnswerError, match="cannot be used"):
        make_client(httpserver).get("/a", object)


def test_a_body_over_the_bound_is_refused(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data(b"x" * (33 * 1024 * 1024))
    with pytest.raises(BadAnswerError, match="more than 32 MiB"):
        make_client(httpserver, 30).get("/a", object)


@pytest.mark.process
def test_nothing_listening_is_refused_and_names_the_setting() -> None:
    client = SupportClient(f"http://127.0.0.1:{closed_port()}", timeout_s=5)
    with pytest.raises(ConnectionRefusedClientError, match=r"refused.*SUPPORT_URL"):
        client.get("/a", object)


@pytest.mark.process
@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n",),
    ],
)
def test_a_hang_at_any_point_is_a_time_out(pieces: tuple[bytes, ...]) -> None:
    with raw_server(*pieces, hang=True) as url:
        client = SupportClient(url, timeout_s=0.3)
        with pytest.raises(ClientTimeoutError, match=r"0\.3 s"):
            client.get("/a", object)


@pytest.mark.process
def test_a_body_that_trickles_is_a_time_out() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    with raw_server(head, *[b" "] * 500, pause_s=0.05) as url:
        client = SupportClient(url, timeout_s=0.5)
        with pytest.raises(ClientTimeoutError):
            client.get("/a", object)


def test_credentials_in_the_address_are_used_and_never_shown(httpserver: HTTPServer) -> None:
    def answer(request: Request) -> Response:
        assert request.authorization is not None
        assert request.authorization.password == "p@ss word9"
        return Response("no", 403)

    httpserver.expect_request("/a").respond_with_handler(answer)
    address = f"http://me:p%40ss%20word9@{httpserver.host}:{httpserver.port}"
    client = SupportClient(address, timeout_s=5)
    assert client.url == f"http://{httpserver.host}:{httpserver.port}"
    with pytest.raises(AccessDeniedError) as caught:
        client.get("/a", object)
    assert "p%40ss" not in str(caught.value)
    assert "p@ss" not in str(caught.value)
