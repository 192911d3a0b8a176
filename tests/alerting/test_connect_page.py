"""docs/connect.md, part 9: its blocks, with a real Alertmanager, over TLS, with the token."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from alerting.settings import ServeSettings
from alerting.targets import connect_targets
from tests.foreign.test_guide import fire
from tests.support.gateway import StoreServer, run_alertmanager
from tests.support.network import make_certificates
from tests.support.serving import TOKEN, get_settings, make_service, run_receivers
from tests.support.stack import wait_until

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "connect.md").read_text("utf-8").partition("## 9. Alert to report")[2]
(SETTINGS,) = re.findall(r"^```ini\n(.*?)^```", PAGE, re.M | re.S)
(TARGETS,) = re.findall(r"^```properties\n(.*?)^```", PAGE, re.M | re.S)
(ROUTE,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
NAMES = dict(re.findall(r"^([A-Z_]+)=(.*)$", SETTINGS, re.M))


def test_every_setting_of_the_part_is_one() -> None:
    assert {name.lower() for name in NAMES} <= set(ServeSettings.model_fields)


def test_apprise_reads_every_target_of_the_part(tmp_path: Path) -> None:
    path = tmp_path / "targets"
    path.write_text(TARGETS)
    settings = ServeSettings(serve_targets_file=path, support_url="")
    assert list(connect_targets(settings)) == ["slack", "workflows", "mailtos", "pagerduty"]


@pytest.mark.process
def test_an_alert_of_a_real_alertmanager_becomes_a_report(
    juicefs: StoreServer, tmp_path: Path
) -> None:
    ca_file, _ = make_certificates(tmp_path)
    cert = {
        "SERVE_TLS_CERT_FILE": str(tmp_path / "leaf.pem"),
        "SERVE_TLS_KEY_FILE": str(tmp_path / "leaf.key"),
    }
    with run_receivers() as receivers:
        service = make_service(tmp_path, receivers, get_settings(juicefs), token=TOKEN, **cert)
        service.ca_file = str(ca_file)
        assert set(NAMES) - {"SERVE_PAGE_URL"} <= set(service.environment)
        service.start()
        try:
            config = tmp_path / "alertmanager.yml"
            text = ROUTE.replace("serve.example.net:8115", f"127.0.0.1:{service.port}")
            text = text.replace(
                "/etc/alertmanager/runbook.token", str(tmp_path / "serve_token_file")
            )
            config.write_text(text.replace("/etc/ssl/private-ca.pem", str(ca_file)))
            subprocess.run(["amtool", "check-config", config], check=True, timeout=30)
            with run_alertmanager(config) as url:
                fire(url)
                fire(url, alertname="SomethingElse")
                wait_until(
                    lambda: len(receivers.list_texts("slack")) == 1,
                    what=f"the report is told\n{service.log}",
                    deadline_s=150,
                )
            assert service.read_metric("alerts_received_total") == 1
            document = service.get("/incidents").json()
            assert document["schema"] == "runbook/serve-incidents/1"
        finally:
            service.stop()


def test_the_route_is_the_one_that_the_addons_write() -> None:
    from addons.render import render_configs

    rendered = render_configs("production", {"TARGET_SERVE": "serve.example.net:8115"})
    theirs = yaml.safe_load(rendered["alertmanager.yml"])["route"]["routes"][0]
    assert yaml.safe_load(ROUTE)["route"]["routes"][0] == theirs
