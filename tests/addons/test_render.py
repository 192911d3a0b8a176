from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from addons.profiles import PROFILES
from addons.render import RenderError, main, render_configs


def render(name: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    rendered: dict[str, Any] = yaml.safe_load(render_configs("demo", environment or {})[name])
    return rendered


def read_jobs(environment: dict[str, str] | None = None) -> dict[str, list[str]]:
    return {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in render("prometheus.yml", environment)["scrape_configs"]
    }


def read_receivers(environment: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    config = render("alertmanager.yml", environment)
    return {receiver["name"]: receiver for receiver in config["receivers"]}


def test_without_targets_the_services_that_dataflow_has_are_scraped() -> None:
    assert read_jobs() == {
        "prometheus": ["localhost:9090"],
        "alertmanager": ["alertmanager:9093"],
        "minio": ["minio:9000"],
        "app-services": ["fulfillment-service:8000", "support-service:8000"],
        "artifact-exporter": ["artifact-exporter:8112"],
    }


def test_targets_come_from_the_environment_and_an_empty_one_is_left_out() -> None:
    jobs = read_jobs({"TARGET_PIPELINE": "127.0.0.1:8110", "TARGET_ALERTMANAGER": ""})
    assert "127.0.0.1:8110" in jobs["app-services"]
    assert "alertmanager" not in jobs
    assert "alerting" not in render("prometheus.yml", {"TARGET_ALERTMANAGER": ""})


@pytest.mark.parametrize("target", ["minio", "http://minio:9000", 'a:1"]\nx', "a:b", ":9000"])
def test_a_target_that_is_no_host_and_port_is_refused_by_name(target: str) -> None:
    with pytest.raises(RenderError, match="TARGET_MINIO is no host:port"):
        render_configs("demo", {"TARGET_MINIO": target})


def test_values_of_the_environment_arrive_as_they_are() -> None:
    password = "p'\"\\ #: - {x} {{ y }} 📦 é ${HOME}"
    config = render(
        "alertmanager.yml",
        {"ALERTMANAGER_SMTP_USERNAME": "on: call", "ALERTMANAGER_SMTP_PASSWORD": password},
    )
    receivers = {receiver["name"]: receiver for receiver in config["receivers"]}
    (email,) = receivers["email-oncall"]["email_configs"]
    assert (email["auth_username"], email["auth_password"]) == ("on: call", password)


@pytest.mark.parametrize("value", ["a\nb: c", "a\x00", "a\u2028b", "a\x7f"])
def test_a_value_with_a_line_break_is_refused_without_telling_it(value: str) -> None:
    with pytest.raises(RenderError) as raised:
        render_configs("demo", {"ALERTMANAGER_SMTP_PASSWORD": value})
    assert str(raised.value).startswith("ALERTMANAGER_SMTP_PASSWORD holds")
    assert value not in str(raised.value)


def test_unset_channels_keep_dataflow_s_placeholders() -> None:
    receivers = read_receivers()
    slack = receivers["slack-critical"]["slack_configs"][0]
    assert slack["api_url"] == "https://hooks.slack.com/services/REPLACE/ME"
    assert slack["channel"] == "#data-ops"
    (email,) = receivers["email-oncall"]["email_configs"]
    assert email["smarthost"] == "smtp.example.com:587"
    assert "auth_password" not in email


def test_every_channel_of_every_receiver_tells_the_resolution() -> None:
    channels = [
        channel
        for receiver in read_receivers().values()
        for kind, configs in receiver.items()
        if kind != "name"
        for channel in configs
    ]
    assert len(channels) == 6
    assert all(channel["send_resolved"] is True for channel in channels)


def test_a_drill_reaches_the_same_channels_and_each_message_is_marked() -> None:
    receivers = read_receivers()
    drill = receivers.pop("drill")
    real = {kind: value for receiver in receivers.values() for kind, value in receiver.items()}
    assert set(drill) == set(real)
    titles = [
        drill["slack_configs"][0]["title"],
        drill["email_configs"][0]["headers"]["Subject"],
        drill["msteamsv2_configs"][0]["title"],
    ]
    assert all(title.startswith("[DRILL] [") for title in titles)
    assert real["slack_configs"][0]["title"] == titles[0].removeprefix("[DRILL] ")


def test_runbook_serve_gets_its_route_first_and_the_others_go_on() -> None:
    environment = {
        "TARGET_SERVE": "serve:8115",
        "ALERTMANAGER_SERVE_SCHEME": "https",
        "ALERTMANAGER_SERVE_TOKEN_FILE": "/run/token",
    }
    config = render("alertmanager.yml", environment)
    first = config["route"]["routes"][0]
    assert (first["receiver"], first["continue"]) == ("runbook", True)
    (webhook,) = read_receivers(environment)["runbook"]["webhook_configs"]
    assert webhook["url"] == "https://serve:8115/alertmanager"
    assert webhook["http_config"]["authorization"] == {"credentials_file": "/run/token"}
    jobs = {job["job_name"]: job for job in render("prometheus.yml", environment)["scrape_configs"]}
    assert jobs["runbook-serve"]["scheme"] == "https"
    assert jobs["runbook-serve"]["authorization"] == {"credentials_file": "/run/token"}


def test_without_runbook_serve_nothing_of_it_is_written() -> None:
    assert "runbook" not in read_receivers()
    assert "runbook-serve" not in read_jobs()


def test_an_odd_scheme_is_refused() -> None:
    with pytest.raises(RenderError, match="ALERTMANAGER_SERVE_SCHEME"):
        render_configs("demo", {"ALERTMANAGER_SERVE_SCHEME": "ftp"})


def test_a_wrong_tls_setting_is_refused() -> None:
    with pytest.raises(RenderError, match="ALERTMANAGER_SMTP_REQUIRE_TLS"):
        render_configs("demo", {"ALERTMANAGER_SMTP_REQUIRE_TLS": "maybe"})


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_alert_explains_itself_and_names_its_runbook(profile: str) -> None:
    environment = {"RUNBOOK_DOCS_URL": "https://docs.example.com/incident-runbook.md"}
    text = render_configs(profile, environment)["rules/fulfillment.yml"]
    runbook = Path(__file__).parents[2] / "docs" / "monitoring" / "incident-runbook.md"
    headings = [
        line.lstrip("# ").lower() for line in runbook.read_text().splitlines() if line[:1] == "#"
    ]
    rules = yaml.safe_load(text)["groups"][0]["rules"]
    assert len(rules) == 7
    for rule in rules:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        url, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert url == environment["RUNBOOK_DOCS_URL"]
        assert anchor in headings


def test_profiles_differ_in_times_and_in_nothing_else() -> None:
    demo, production = (
        yaml.safe_load(render_configs(name, {})["rules/fulfillment.yml"])["groups"][0]["rules"]
        for name in ("demo", "production")
    )
    assert [rule.get("for") for rule in production] == ["5m"] * 6 + [None]
    assert [rule.get("for") for rule in demo] == ["5s", "5s", "5s", "10s", "10s", "10s", None]
    for one, other in zip(demo, production, strict=True):
        assert one["labels"] == other["labels"]
        assert one["annotations"]["summary"] == other["annotations"]["summary"]


def test_the_files_are_written_and_the_one_with_secrets_is_private(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alertmanager.yml").touch(mode=0o644)
    assert main(["--profile", "demo", "--out", str(tmp_path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "prometheus.yml",
        "rules/fulfillment.yml",
        "alertmanager.yml",
    ]
    assert stat.S_IMODE((tmp_path / "alertmanager.yml").stat().st_mode) == 0o600


def test_a_wrong_variable_is_exit_2_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TARGET_MINIO", "minio")
    with pytest.raises(SystemExit) as ended:
        main(["--profile", "demo", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "TARGET_MINIO" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
