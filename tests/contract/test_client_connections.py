"""How every HTTP system is reached: certificates, credentials, proxy; and nothing of the shell."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from fulfillment.clients import Clients
from fulfillment.settings import HTTP_SYSTEMS, Settings
from runbook_lib.errors import (
    ConnectionRefusedClientError,
)
from runbook_lib.http import HttpClient
from tests.support.network import (
    Received,
    foreign_shell,
    make_answer,
    make_certificates,
    run_proxy,
    run_server,
)

__all__ = ["foreign_shell"]

SYSTEMS = pytest.mark.parametrize("system", HTTP_SYSTEMS)
SECRET = "word:with-colon"


def settings_of(system: str, url: str, **changes: Any) -> Settings:
    return Settings(**{f"{system}_url": url, **changes})


def client_of(system: str, settings: Settings) -> HttpClient:
    client: HttpClient = getattr(Clients(settings), system)
    return client


def answer_well(_: Received) -> bytes:
    return make_answer(b"fine", 200, "content-type: text/plain")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_certificates(tmp_path_factory.mktemp("ca"))


@pytest.mark.process
@SYSTEMS
def test_the_systems_credentials_go_to_it_and_the_proxys_to_the_proxy(
    system: str, certificates: Any, foreign_shell: Callable[[str], None]
) -> None:
    ca_file, context = certificates
    with (
        run_server(answer_well) as plain,
        run_server(answer_well, tls=context) as secure,
        run_proxy() as proxy,
        run_proxy() as silent,
    ):
        foreign_shell(silent.endpoint)
        through = {"proxy_url": f"http://me:{SECRET}@{proxy.endpoint}", "ca_bundle": ca_file}
        through |= {f"{name}_auth": f"Bearer for-{name}" for name in HTTP_SYSTEMS}
        for url in (f"http://{plain.endpoint}", f"https://{secure.endpoint}"):
            settings = settings_of(system, url, **through)
            assert client_of(system, settings).read_health() == "fine"
    assert [r.method for r in proxy.received] == ["GET", "CONNECT"]
    assert (
        proxy.received[0].target == f"http://{plain.endpoint}{client_of(system, settings).HEALTH}"
    )
    assert proxy.received[1].target == secure.endpoint
    for request in proxy.received:
        known = request.headers["proxy-authorization"].removeprefix("Basic ")
        assert base64.b64decode(known).decode() == f"me:{SECRET}"
    assert "proxy-authorization" not in secure.received[0].headers
    for request in (*plain.received, *secure.received):
        assert request.headers["authorization"] == f"Bearer for-{system}"
    assert silent.received == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_away_is_named(scheme: str) -> None:
    settings = settings_of(
        "support", f"{scheme}://support.example", proxy_url=f"http://me:{SECRET}@127.0.0.1:1"
    )
    with pytest.raises(ConnectionRefusedClientError, match="PROXY_URL") as caught:
        client_of("support", settings).read_health()
    assert SECRET not in str(caught.value)
