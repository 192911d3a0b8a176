"""The rendered files before Prometheus's and Alertmanager's own judges, for both profiles."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from addons.profiles import PROFILES
from addons.render import render_configs
from tests.support.rule_cases import CASES, promtool_document

pytestmark = pytest.mark.process

HOSTILE = {
    "TARGET_PIPELINE": "[::1]:8110",
    "ALERTMANAGER_SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/'\"#\\",
    "ALERTMANAGER_EMAIL_TO": "a@example.com, b@example.com",
    "ALERTMANAGER_SMTP_USERNAME": "on: call",
    "ALERTMANAGER_SMTP_PASSWORD": "p'\"\\ #: - {x} 📦 é",
}


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _render(profile: str, folder: Path, environment: dict[str, str]) -> Path:
    for name, text in render_configs(profile, environment).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=sorted(PROFILES))
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def rendered(profile: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _render(profile, tmp_path_factory.mktemp(profile), {})


def test_hostile_values_of_the_environment_stay_values(profile: str, tmp_path: Path) -> None:
    folder = _render(profile, tmp_path, HOSTILE)
    _run("promtool", "check", "config", folder / "prometheus.yml")
    assert "5 receivers" in _run("amtool", "check-config", folder / "alertmanager.yml")


def test_rules_over_simulated_time(profile: str, rendered: Path, tmp_path: Path) -> None:
    paths = []
    for name, make_case in CASES.items():
        case = make_case(PROFILES[profile])
        document = promtool_document(case, str(rendered / "rules" / "fulfillment.yml"))
        path = tmp_path / f"{name}.yml"
        path.write_text(json.dumps(document), encoding="utf-8")
        paths.append(path)
    # One run for all cases: what fails stands below the name of its file.
    _run("promtool", "test", "rules", *paths)


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (["severity=high"], "slack-critical,email-oncall,teams-oncall"),
        (["severity=warning"], "email-oncall,teams-oncall"),
        (["severity=high", "drill=true"], "drill"),
    ],
)
def test_alerts_are_routed_to_their_receivers(
    rendered: Path, labels: list[str], receivers: str
) -> None:
    routed = _run(
        "amtool",
        "config",
        "routes",
        "test",
        f"--config.file={rendered / 'alertmanager.yml'}",
        f"--verify.receivers={receivers}",
        "alertname=FulfillmentDelay",
        "service=fulfillment-service",
        *labels,
    )
    assert routed.strip() == receivers
