"""Which settings are refused, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerting.settings import ServeSettings
from runbook_lib.errors import SettingsError
from runbook_lib.redact import Redactor
from tests.support.serving import TOKEN


def load(monkeypatch: pytest.MonkeyPatch, **settings: str) -> ServeSettings:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return ServeSettings.load()


def test_the_defaults_listen_on_loopback_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert settings.serve_address == "127.0.0.1:8115"
    assert settings.is_loopback
    assert settings.database_url.startswith("sqlite:////")


def test_links_lead_to_where_people_reach_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch).page_url == "http://127.0.0.1:8115"
    outside = load(monkeypatch, SERVE_PAGE_URL="https://runbook.example.net/")
    assert outside.page_url == "https://runbook.example.net"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVE_ADDRESS", "0.0.0.0:8115"),
        ("SERVE_ADDRESS", "serve.example.net:8115"),
        ("SERVE_ADDRESS", "8115"),
        ("SERVE_ADDRESS", "127.0.0.1:70000"),
        ("SERVE_PAGE_URL", "serve.example.net"),
        ("SERVE_DATABASE_URL", "mysql://x/y"),
        ("SERVE_TLS_CERT_FILE", "cert.pem"),
        ("SERVE_MAIL_TO", "a@b.c\nBcc: d@e.f"),
        ("SERVE_TOKEN_FILE", "missing"),
        ("SERVE_QUEUE_LIMIT", "0"),
        ("SERVE_COOLDOWN_S", "nan"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"SERVE_\w+"):
        load(monkeypatch, **{name: value})


def test_a_short_token_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("short")
    with pytest.raises(SettingsError, match="SERVE_TOKEN_FILE"):
        load(monkeypatch, SERVE_TOKEN_FILE=str(path))


def test_what_files_hold_is_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = {
        "SERVE_TOKEN_FILE": TOKEN,
        "SERVE_SLACK_URL_FILE": "https://hooks.example.com/path-of-slack",
        "SERVE_TEAMS_URL_FILE": "https://teams.example.com/?sig=signature",
        "SERVE_SMTP_URL_FILE": "smtps://user:pass%40word@mail.example.com",
    }
    paths = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(f"{text}\n")
        paths[name] = str(tmp_path / name)
    settings = load(
        monkeypatch,
        SERVE_MAIL_FROM="a@example.com",
        SERVE_MAIL_TO="b@example.com, c@example.com",
        SERVE_DATABASE_URL="postgresql://serve:database-password@db/serve",
        **paths,
    )
    hidden = Redactor(settings.secrets).text(
        " ".join([*texts.values(), "pass@word", "database-password"])
    )
    for part in (
        TOKEN, "path-of-slack", "signature", "pass@word", "database-password",
    ):  # fmt: skip
        assert part not in hidden
    assert TOKEN not in repr(settings)
    assert settings.database_url == "postgresql+psycopg://serve:database-password@db/serve"
