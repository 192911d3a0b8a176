"""HttpClient: every way in which an answer can be wrong becomes one error of the tree."""

from __future__ import annotations

import pytest
from pytest_httpserver import HTTPServer

from fulfillment.clients.http_systems import SupportClient
from runbook_lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotFoundError,
)
from tests.support.network import Act, Received, run_server

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"


def make_client(server: HTTPServer, timeout_s: float = 5) -> SupportClient:
    return SupportClient(server.url_for("").rstrip("/"), timeout_s=timeout_s)


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
    client = SupportClient("http://127.0.0.1:1", timeout_s=5)
    with pytest.raises(ConnectionRefusedClientError, match=r"refused.*SUPPORT_URL"):
        client.get("/a", object)


@pytest.mark.process
@pytest.mark.parametrize("data", [b"", HEAD])
def test_a_hang_at_any_point_is_a_time_out(data: bytes) -> None:
    with run_server(lambda _: Act(data, "hang")) as server:
        client = SupportClient(f"http://{server.endpoint}", timeout_s=0.3)
        with pytest.raises(ClientTimeoutError, match=r"0\.3 s"):
            client.get("/a", object)


@pytest.mark.process
def test_a_body_that_trickles_is_a_time_out() -> None:
    def trickle(_: Received) -> bytes:
        (connection,) = server.connections
        connection.sendall(HEAD)
        while not server.closing.wait(0.05):
            connection.sendall(b" ")
        return b""

    with run_server(trickle) as server:
        client = SupportClient(f"http://{server.endpoint}", timeout_s=0.5)
        with pytest.raises(ClientTimeoutError):
            client.get("/a", object)
