"""Render Prometheus's and Alertmanager's configuration: ``python -m addons.render``."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from addons.profiles import PROFILES

__all__ = ["RenderError", "main", "render_configs"]

# A service that every DataFlow with these add-ons has is found under its compose name; one
# that only the demo environment has is scraped when its target is set.
_DEFAULT_TARGETS = {
    "alertmanager": "alertmanager:9093",
    "carrier": "",
    "exporter": "artifact-exporter:8112",
    "fulfillment": "fulfillment-service:8000",
    "minio": "minio:9000",
    "pipeline": "",
    "probe": "",
    "prometheus": "localhost:9090",
    "serve": "",
    "sink": "",
    "support": "support-service:8000",
}
_APP_SERVICES = ("fulfillment", "support", "pipeline", "carrier", "probe", "sink")
# The placeholders stay as visible as in DataFlow: step 3.1 names an undelivered channel.
_DEFAULT_ALERTMANAGER = {
    "email_from": "alertmanager@example.com",
    "email_to": "oncall@example.com",
    "slack_channel": "#data-ops",
    "slack_webhook_url": "https://hooks.slack.com/services/REPLACE/ME",
    "smtp_password": "",
    "smtp_require_tls": "true",
    "smtp_smarthost": "smtp.example.com:587",
    "smtp_username": "",
    "teams_webhook_url": "https://example.webhook.office.com/webhookb2/REPLACE/ME",
}
# What DataFlow's start script fills in.
_DATAFLOW_FILLS = _DEFAULT_ALERTMANAGER.keys() - {"slack_channel", "smtp_require_tls"}
_FILES = {
    "prometheus.yml": "prometheus/prometheus.yml.j2",
    "rules/fulfillment.yml": "prometheus/fulfillment_rules.yml.j2",
    "alertmanager.yml": "alertmanager/alertmanager.yml.j2",
}
_HOST_PORT = re.compile(r"[A-Za-z0-9_.-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}")
_BOOLEANS = {"true": True, "false": False}


@dataclass
class RenderError(Exception):
    """A variable of the environment cannot be used; its value, maybe a secret, is not told."""

    variable: str
    problem: str

    def __str__(self) -> str:
        return f"{self.variable} {self.problem}"


def render_configs(
    profile: str,
    environment: Mapping[str, str],
    *,
    alertmanager: tuple[int, int] = (0, 28),
    placeholders: bool = False,
) -> dict[str, str]:
    """Render all files of a profile.

    Parameters
    ----------
    profile
        A name in `addons.profiles.PROFILES`.
    environment
        ``TARGET_*`` (host:port; set but empty leaves a target out), ``ALERTMANAGER_*`` (empty
        is as unset: DataFlow's placeholder stays) and ``RUNBOOK_DOCS_URL``.
    alertmanager
        Its version: before 0.28 Teams is reached by ``msteams_configs``.
    placeholders
        Write ``__ALERTMANAGER_SLACK_WEBHOOK_URL__`` and so on, as in DataFlow's own template,
        for its start script to fill in.

    Returns
    -------
    dict
        Text by relative path.

    Raises
    ------
    RenderError
        When a target is no host:port, or a value holds a character that has no place in it.
    """
    jinja = Environment(
        loader=PackageLoader("addons", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - YAML: every value goes through yaml_text
    )
    jinja.filters.update(duration=_duration, yaml_text=_yaml_text, listed=_listed)
    targets = {name: _target(environment, name) for name in _DEFAULT_TARGETS}
    context = {
        "name": profile,
        "profile": PROFILES[profile],
        "targets": targets,
        "app_services": [targets[name] for name in _APP_SERVICES if targets[name]],
        "alertmanager": _alertmanager(environment, placeholders)
        | {
            "placeholders": placeholders,
            "serve_scheme": _scheme(environment),
            "serve_token_file": _text(environment, "ALERTMANAGER_SERVE_TOKEN_FILE", ""),
            "teams_kind": "msteamsv2_configs" if alertmanager >= (0, 28) else "msteams_configs",
        },
        "runbook_url": _text(
            environment, "RUNBOOK_DOCS_URL", "docs/monitoring/incident-runbook.md"
        ),
    }
    return {path: jinja.get_template(template).render(context) for path, template in _FILES.items()}


def main(arguments: list[str] | None = None) -> int:
    """Write the files of a profile; return the exit code (2: a wrong argument or variable)."""
    parser = argparse.ArgumentParser(prog="addons.render", description=__doc__)
    parser.add_argument("--profile", choices=sorted(PROFILES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder, made when missing")
    parser.add_argument("--alertmanager", type=_version, default=(0, 28), metavar="0.27")
    parser.add_argument("--placeholders", action="store_true", help="__ALERTMANAGER_…__ for values")
    options = parser.parse_args(arguments)
    try:
        files = render_configs(
            options.profile,
            os.environ,
            alertmanager=options.alertmanager,
            placeholders=options.placeholders,
        )
    except RenderError as error:
        parser.exit(2, f"addons.render: {error}\n")
    for name, text in files.items():
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        has_secrets = name == "alertmanager.yml" and not options.placeholders
        _write(path, text, mode=0o600 if has_secrets else 0o644)
        sys.stdout.write(f"{path}\n")
    return 0


def _write(path: Path, text: str, *, mode: int) -> None:
    # Anew, since the mode of a file that exists would stay as it is.
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        stream.write(text)


def _target(environment: Mapping[str, str], name: str) -> str:
    variable = f"TARGET_{name.upper()}"
    target = environment.get(variable, _DEFAULT_TARGETS[name]).strip()
    if target and not _HOST_PORT.fullmatch(target):
        raise RenderError(variable, "is no host:port")
    return target


def _version(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"v?(\d+)\.(\d+)(\.\d+)?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no version such as 0.27")
    return int(match[1]), int(match[2])


def _alertmanager(environment: Mapping[str, str], placeholders: bool) -> dict[str, object]:
    values: dict[str, object] = {
        name: _text(environment, f"ALERTMANAGER_{name.upper()}", default)
        for name, default in _DEFAULT_ALERTMANAGER.items()
    }
    if placeholders:
        values |= {name: f"__ALERTMANAGER_{name.upper()}__" for name in _DATAFLOW_FILLS}
    require_tls = _BOOLEANS.get(str(values["smtp_require_tls"]).lower())
    if require_tls is None:
        raise RenderError("ALERTMANAGER_SMTP_REQUIRE_TLS", "is neither true nor false")
    return values | {"smtp_require_tls": require_tls}


def _scheme(environment: Mapping[str, str]) -> str:
    """Return how `runbook serve` is reached."""
    scheme = environment.get("ALERTMANAGER_SERVE_SCHEME", "") or "http"
    if scheme not in ("http", "https"):
        raise RenderError("ALERTMANAGER_SERVE_SCHEME", "is neither http nor https")
    return scheme


def _text(environment: Mapping[str, str], variable: str, default: str) -> str:
    value = environment.get(variable, "") or default
    if not value.isprintable():
        raise RenderError(variable, "holds a line break or another character that is not printable")
    return value


def _yaml_text(value: str) -> str:
    # JSON strings of printable characters are YAML strings. ensure_ascii would write
    # characters past U+FFFF as two surrogates, which YAML does not read back.
    return json.dumps(value, ensure_ascii=False)


def _duration(seconds: int) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _listed(value: str) -> list[str]:
    return [value] if value else []


if __name__ == "__main__":
    sys.exit(main())
