"""What the demo's parts ask each other takes nothing from the operator's shell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dataflow_stack.store_client import build_client
from tests.support.network import Received, foreign_shell, make_answer, run_proxy, run_server

__all__ = ["foreign_shell"]


def answer_well(_: Received) -> bytes:
    return make_answer(b"{}", 200, "content-type: application/json")


@pytest.mark.process
def test_the_stores_client_signs_with_its_own_keys_and_asks_the_store_itself(
    foreign_shell: Callable[[str], None],
) -> None:
    with run_server(answer_well) as server, run_proxy() as silent:
        foreign_shell(silent.endpoint)
        client = build_client(server.endpoint, "mine", "secret-of-mine")
        assert client.bucket_exists(bucket_name="labels")
    assert silent.received == []
    (sent,) = server.received
    assert "Credential=mine/" in sent.headers["authorization"]
    assert "/us-east-1/s3/" in sent.headers["authorization"]
    assert "x-amz-security-token" not in sent.headers
