"""``runbook check`` on a DataFlow that is not ours: it recognises each system, and every right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.foreign.system import Foreign
from tests.support.network import Received, make_answer, run_server

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ON_JUICEFS = pytest.mark.parametrize("foreign", ["juicefs"], indirect=True)
ANSWERS = {
    "a page": (200, "text/html", b"<html>welcome</html>"),
    "a health of its own": (200, "application/json", b'{"status": "ok"}'),
    "404": (404, "application/json", b'{"detail": "Not Found"}'),
}


def check(foreign: Foreign, settings: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    outcome = foreign.hire("check", **settings).run("check")
    return outcome.code, {system["name"]: system for system in outcome.document["systems"]}


@ON_JUICEFS
def test_every_system_is_recognised(foreign: Foreign) -> None:
    code, systems = check(foreign, {"GRAFANA_URL": "", "PIPELINE_URL": "", "PROBE_URL": ""})
    assert code == 0
    shown = {name: system["recognised"] for name, system in systems.items()}
    absent = ("grafana", "pipeline", "probe", "notifications", "services")
    assert shown == {name: None if name in absent else True for name in shown}
    assert systems["support"]["rights"] == {"read": "yes"}


@ON_JUICEFS
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(
    "name", ["PROMETHEUS", "ALERTMANAGER", "FULFILLMENT", "SUPPORT", "GRAFANA"]
)
def test_an_unrelated_service_at_an_address_is_named(
    foreign: Foreign, name: str, answer: str
) -> None:
    status, kind, body = ANSWERS[answer]

    def serve(_: Received) -> bytes:
        return make_answer(body, status, f"content-type: {kind}")

    with run_server(serve) as server:
        code, systems = check(foreign, {f"{name}_URL": f"http://{server.endpoint}"})
    assert code == 4
    assert systems[name.lower()]["recognised"] is False
    assert f"{name}_URL" in systems[name.lower()]["reason"]
    assert {request.method for request in server.received} == {"GET"}
