"""Settings: what is wrong is named, never shown; what is unset is production."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulfillment.settings import Settings
from runbook_lib.errors import SettingsError
from runbook_lib.settings import find_root

SECRET = "do-not-show-me-77"


def test_nothing_set_is_production_with_the_runbooks_thresholds() -> None:
    settings = Settings.load()
    assert settings.runbook_environment == "production"
    assert not settings.is_playground
    assert (settings.lag_threshold_minutes, settings.lag_for_minutes) == (10, 5)
    assert (settings.recovered_minutes, settings.recovered_scrapes) == (5, 2)
    assert settings.secrets == ()


@pytest.mark.parametrize(
    ("name", "playground"),
    [
        ("local", True),
        ("demo", True),
        ("Local", False),
        ("", False),
        ("local,production", False),
    ],
)  # fmt: skip
def test_only_local_and_demo_are_playgrounds(
    monkeypatch: pytest.MonkeyPatch, name: str, playground: bool
) -> None:
    monkeypatch.setenv("RUNBOOK_ENVIRONMENT", name)
    assert Settings.load().is_playground is playground


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("READY_PREFIX", "pending/"),
        ("MINIO_ENDPOINT", f"u:{SECRET}@host"),
        ("LAG_THRESHOLD_MINUTES", SECRET),
        ("RUNBOOK_LANG", SECRET),
        ("RUNBOOK_TIMEZONE", "Mars/Base"),
        ("RUNBOOK_OPERATOR", f" \x07Drill:{SECRET}"),
        ("PROXY_URL", f"https://u:{SECRET}@proxy:3128"),
        ("GRAFANA_URL", f"https://u:{SECRET}@grafana"),
        ("ORDER_ID_FROM", f"key:({SECRET}"),
        ("SUPPORT_AUTH", SECRET),
        ("SUPPORT_AUTH", f"Bearer {SECRET}\nmore"),
        ("SUPPORT_AUTH", f"@/{SECRET}"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.load()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"RELEASE_LEASE_S": "17"},
        {"RELEASE_LEASE_S": "8", "RELEASE_EFFECT_S": "2", "RELEASE_CLOCK_SPREAD_S": "4"},
    ],
)
def test_a_claim_that_lapses_before_a_request_is_over_is_refused(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"RELEASE_LEASE_S: .*RELEASE_EFFECT_S"):
        Settings.load()


def test_secrets_are_known_for_redaction_and_never_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINIO_ROOT_PASSWORD", "minio-pw-1")
    monkeypatch.setenv("GRAFANA_AUTH", "Basic me:grafana-pw-2")
    (tmp_path / "auth").write_text("Basic planner:pipeline-pw-3\n")
    monkeypatch.setenv("PIPELINE_AUTH", "@auth")
    monkeypatch.setenv("TICKET_URL", "https://u:url%40pw-4@tickets.local/")
    monkeypatch.setenv("MINIO_SESSION_TOKEN", "token-pw-5")
    monkeypatch.setenv("MINIO_CHANGE_USER", "changer")
    monkeypatch.setenv("MINIO_CHANGE_PASSWORD", "change-pw-6")
    monkeypatch.setenv("PROXY_URL", "http://u:proxy-pw-7@proxy:3128")
    monkeypatch.setenv("SUPPORT_AUTH", "Bearer token-pw-8")
    settings = Settings.load()
    names = ("minio-pw-1", "grafana-pw-2", "pipeline-pw-3", "url@pw-4")
    assert set(settings.secrets) == {
        *names,
        "token-pw-5",
        "change-pw-6",
        "proxy-pw-7",
        "token-pw-8",
        "me:grafana-pw-2",
        "planner:pipeline-pw-3",
        "Basic me:grafana-pw-2",
        "Basic planner:pipeline-pw-3",
        "Bearer token-pw-8",
    }
    for shown in (repr(settings.minio_root_password), str(settings.grafana_auth)):
        assert "pw" not in shown
    assert "minio-pw-1" not in repr(settings)


def test_an_old_name_is_read_and_one_line_says_the_new_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".env").write_text("GRAFANA_USER=me\nGRAFANA_PASSWORD=pw-2\nPROBE_USER=\n")
    monkeypatch.setenv("SUPPORT_TOKEN", "pw-3")
    monkeypatch.setenv("PIPELINE_TOKEN", "pw-4")
    monkeypatch.setenv("PIPELINE_AUTH", "Bearer pw-5")
    for _ in range(2):
        settings = Settings.load()
    assert settings.grafana_auth.get_secret_value() == "Basic me:pw-2"
    assert settings.support_auth.get_secret_value() == "Bearer pw-3"
    assert settings.pipeline_auth.get_secret_value() == "Bearer pw-5"
    (record,) = caplog.records
    assert "SUPPORT_AUTH, GRAFANA_AUTH" in record.message
    assert "pw-" not in record.message


def test_a_dotenv_is_read_and_the_environment_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "PENDING_PREFIX=from-file/\nCHAOS_PREFIX=x/\nUNKNOWN_NAME=1\nDATAFLOW_HOME=\n"
    )
    monkeypatch.setenv("CHAOS_PREFIX", "from-environment/")
    settings = Settings.load()
    assert (settings.pending_prefix, settings.chaos_prefix) == ("from-file/", "from-environment/")
    assert settings.dataflow_home is None


def test_the_root_is_never_the_folder_in_which_something_is_started(tmp_path: Path) -> None:
    elsewhere = tmp_path / "of another" / "project"
    elsewhere.mkdir(parents=True)
    (elsewhere / "pyproject.toml").touch()
    assert find_root(elsewhere, tmp_path) == tmp_path  # the checkout
    assert find_root(elsewhere, None) == Path.home()
    (elsewhere.parent / ".env").touch()
    assert find_root(elsewhere, tmp_path) == elsewhere.parent


def test_incidents_have_one_home_whichever_settings_are_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runbook_lib.settings.find_root", lambda *_: tmp_path / "elsewhere")
    settings = Settings.load()
    assert settings.runbook_home == tmp_path / "reports"
    assert settings.runbook_stack_home == tmp_path / "elsewhere" / ".stack"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (" an\n\x1b[31m\u202e@host \x00", "an[31m@host"),
        ("x" * 300, "x" * 100),
        ("\x07\u200b", "oncall@box"),
    ],
)
def test_the_operator_is_who_is_named_else_login_and_host(
    monkeypatch: pytest.MonkeyPatch, given: str, wanted: str
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "on\x1bcall")
    monkeypatch.setattr("socket.gethostname", lambda: "box\n")
    assert Settings(runbook_operator=given).operator == wanted
