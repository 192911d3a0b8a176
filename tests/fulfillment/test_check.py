"""``runbook check``: whether you can investigate and release, and what is missing."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from fulfillment.commands import check
from fulfillment.settings import HTTP_SYSTEMS, Settings
from runbook_lib.errors import ExitCode
from tests.support.network import Received, make_answer, run_server

NOWHERE = "http://127.0.0.1:1"


def make_settings(home: Path, **changes: Any) -> Settings:
    urls = {f"{system}_url": NOWHERE for system in HTTP_SYSTEMS}
    known = {"minio_root_user": "looker", "minio_root_password": "secret-of-looker"}
    given = {"minio_endpoint": "127.0.0.1:1", "runbook_home": home, "runbook_services": "none"}
    return Settings(**given | urls | known | changes)


@pytest.mark.parametrize("changes", [{}, {"minio_root_user": ""}])
def test_not_connected_is_one_sentence_and_no_looking(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    document = check(make_settings(tmp_path, **changes))
    assert document.exit_code is ExitCode.UNKNOWN
    assert "\n" not in document.summary
    assert document.summary
    assert document.verdict is None
    assert not [s["name"] for s in document.systems if s["reachable"]]
    assert not [s["name"] for s in document.systems if s["missing_for_looking"]]
    assert list(tmp_path.iterdir()) == []


def test_a_warning_of_a_plug_in_stands_after_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = EntryPoint("serve", "alerting.checks:list_warnings", "runbook.checks")
    monkeypatch.setattr("fulfillment.commands.entry_points", lambda **_: [plugin])
    monkeypatch.setenv("SERVE_TARGETS_FILE", "targets")
    monkeypatch.setenv("SERVE_ADDRESS", "127.0.0.1:1")
    assert "SERVE_PAGE_URL" in check(make_settings(tmp_path)).answer


@pytest.mark.process
def test_a_right_that_is_denied_is_listed_and_the_others_still_answer(tmp_path: Path) -> None:
    def answer(request: Received) -> bytes:
        if request.target.startswith("/support"):
            return make_answer(b'{"detail": "no"}', 403, "content-type: application/json")
        return make_answer(b'{"items": []}', 200, "content-type: application/json")

    with run_server(answer) as server:
        url = f"http://{server.endpoint}"
        document = check(
            make_settings(
                tmp_path,
                support_url=url,
                fulfillment_url=url,
                pipeline_url="",
                worker_control="api",
            )
        )
    systems = {system["name"]: system for system in document.systems}
    assert systems["support"]["missing_for_looking"] == ["read"]
    assert [systems[n]["reachable"] for n in ("support", "pipeline")] == [True, None]
    assert systems["fulfillment"]["rights"] == {"read": "yes", "pause": "not known"}
    # without the store and Prometheus nobody can look, whatever else answers
    assert document.exit_code is ExitCode.UNKNOWN
    assert document.summary
    methods = {request.method for request in server.received}
    assert methods == {"GET"}
