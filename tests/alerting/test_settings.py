"""Which settings are refused, and what `runbook check` says about them."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from alerting.checks import list_warnings
from alerting.settings import ServeSettings
from runbook_lib.errors import SettingsError


def load(monkeypatch: pytest.MonkeyPatch, **settings: str) -> ServeSettings:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return ServeSettings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVE_ADDRESS", "0.0.0.0:8115"),
        ("SERVE_PAGE_URL", "serve.example.net"),
        ("SERVE_TLS_CERT_FILE", "cert.pem"),
        ("SERVE_SLACK_URL_FILE", "slack"),
    ],
)
def test_a_wrong_or_an_old_setting_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"SERVE_\w+"):
        load(monkeypatch, **{name: value})


@pytest.mark.parametrize("content", [None, "short"])
def test_a_token_that_is_missing_or_short_is_refused(
    content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    if content:
        path.write_text(content)
    with pytest.raises(SettingsError, match="SERVE_TOKEN_FILE"):
        load(monkeypatch, SERVE_TOKEN_FILE=str(path)).read_token()


@pytest.mark.parametrize(
    ("page_url", "count"), [("", 1), ("http://localhost:1", 1), ("https://x.example.net", 0)]
)
def test_links_that_only_this_machine_can_open_are_a_warning(
    page_url: str, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load(
        monkeypatch,
        RUNBOOK_HOME=str(tmp_path),
        SERVE_ADDRESS="127.0.0.1:1",
        SERVE_PAGE_URL=page_url,
        SERVE_TARGETS_FILE=str(tmp_path / "targets"),
    )
    assert len(list_warnings()) == count


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_service_that_works_in_another_home_is_a_warning(
    *, is_ours: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/health").respond_with_json({"status": "ok"})
    address = f"127.0.0.1:{httpserver.port}"
    settings = load(monkeypatch, RUNBOOK_HOME=str(tmp_path), SERVE_ADDRESS=address)
    settings.serve_home.mkdir()
    with settings.lock_path.open("w") as file:
        if is_ours:
            fcntl.flock(file, fcntl.LOCK_EX)
        assert len(list_warnings()) == (0 if is_ours else 1)
