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


def read_receivers(environment: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    config = render("alertmanager.yml", environment)
    return {receiver["name"]: receiver for receiver in config["receivers"]}


@pytest.mark.parametrize(
    "target",
    [
        "minio",
        'a:1"]\nx',
    ],
)
def test_a_target_that_is_no_host_and_port_is_refused_by_name(target: str) -> None:
    with pytest.raises(RenderError, match="TARGET_MINIO is no host:port"):
        render_configs("demo", {"TARGET_MINIO": target})


@pytest.mark.parametrize(
    "value",
    [
        "a\nb: c",
        "a\u2028b",
    ],
)
def test_a_value_with_a_line_break_is_refused_without_telling_it(value: str) -> None:
    with pytest.raises(RenderError) as raised:
        render_configs("demo", {"ALERTMANAGER_SMTP_PASSWORD": value})
    assert str(raised.value).startswith("ALERTMANAGER_SMTP_PASSWORD holds")
    assert value not in str(raised.value)


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
