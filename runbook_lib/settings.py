"""The only reader of the environment and of ``.env``."""

from __future__ import annotations

import getpass
import os
import re
import socket
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError

__all__ = ["HTTP_SYSTEMS", "ORDER_ID_IN_KEY", "Settings", "find_root", "load_settings"]

#: How DataFlow names a label: ``<order id>-<12 hex>.pdf``.
ORDER_ID_IN_KEY = r"^(\d+)-[0-9a-f]{12}\.\w+$"
#: What is asked over HTTP: each has ``<SYSTEM>_URL``, ``_TOKEN``, ``_USER`` and ``_PASSWORD``.
HTTP_SYSTEMS = (
    *("prometheus", "alertmanager", "fulfillment", "support", "pipeline"),
    *("grafana", "probe", "notifications"),
)
_MAX_PATTERN_CHARS = 200
_METADATA = re.compile(r"metadata:[A-Za-z0-9._-]{1,100}")


class Settings(BaseSettings):
    """Where the systems are, with which credentials, and the runbook's thresholds.

    Every field is an environment variable of the same name in capitals, and stands in
    ``.env.example``. An unset ``RUNBOOK_ENVIRONMENT`` means production.
    """

    model_config = SettingsConfigDict(
        extra="ignore",
        frozen=True,
        # An infinite threshold would never be breached.
        allow_inf_nan=False,
    )

    minio_endpoint: str = Field("127.0.0.1:9000", description="host:port of the object store")
    minio_secure: bool = Field(False, description="use TLS to the object store")
    minio_root_user: str = Field("", description="access key")
    minio_root_password: SecretStr = Field(SecretStr(""), description="secret key")
    minio_session_token: SecretStr = Field(SecretStr(""), description="of temporary keys")
    minio_change_user: str = Field("", description="access key for changes; empty: the first one")
    minio_change_password: SecretStr = SecretStr("")
    minio_region: str = Field("us-east-1", description="region used in signatures")
    minio_addressing: Literal["path", "virtual"] = Field(
        "path", description="whether the bucket stands in the path or in the host name"
    )
    fulfillment_bucket: str = "fulfillment-artifacts"
    pending_prefix: str = "pending/"
    ready_prefix: str = "ready/"
    chaos_prefix: str = "chaos/fulfillment-delay/"

    prometheus_url: str = "http://127.0.0.1:9090"
    prometheus_token: SecretStr = SecretStr("")
    prometheus_user: str = ""
    prometheus_password: SecretStr = SecretStr("")
    alertmanager_url: str = "http://127.0.0.1:9093"
    alertmanager_token: SecretStr = SecretStr("")
    alertmanager_user: str = ""
    alertmanager_password: SecretStr = SecretStr("")
    grafana_url: str = "http://127.0.0.1:3000"
    grafana_token: SecretStr = SecretStr("")
    grafana_user: str = ""
    grafana_password: SecretStr = SecretStr("")
    support_url: str = "http://127.0.0.1:8109"
    support_token: SecretStr = SecretStr("")
    support_user: str = ""
    support_password: SecretStr = SecretStr("")
    fulfillment_url: str = "http://127.0.0.1:8108"
    fulfillment_token: SecretStr = SecretStr("")
    fulfillment_user: str = ""
    fulfillment_password: SecretStr = SecretStr("")
    pipeline_url: str = "http://127.0.0.1:8110"
    pipeline_token: SecretStr = SecretStr("")
    pipeline_user: str = ""
    pipeline_password: SecretStr = SecretStr("")
    pipeline_dag_id: str = "fulfillment_release"
    probe_url: str = Field("http://127.0.0.1:8113", description="synthetic probe; empty: none")
    probe_token: SecretStr = SecretStr("")
    probe_user: str = ""
    probe_password: SecretStr = SecretStr("")
    notifications_url: str = Field(
        "", description="what receivers got, in the notification-sink's shape; empty: none"
    )
    notifications_token: SecretStr = SecretStr("")
    notifications_user: str = ""
    notifications_password: SecretStr = SecretStr("")

    runbook_home: Path = Path("reports")
    runbook_environment: str = "production"
    runbook_operator: str = Field("", description="who approves; empty: login name and host")
    runbook_services: Literal["supervisor", "compose", "none"] = "compose"
    runbook_stack_home: Path = Path(".stack")
    compose_cmd: str = "docker compose"
    compose_file: str = ""
    dataflow_home: Path | None = Field(None, description="a DataFlow checkout, for section 8")
    worker_service: str = Field("fulfillment-service", description="the worker's service name")

    label_finished: str = Field("shipment", description="shipment, metadata:<key> or always")
    order_id_from: str = Field(
        "metadata:order-id", description="metadata:<key>, else by the key; or key:<regex>"
    )
    release_match: str = Field("*.pdf", min_length=1, max_length=200)
    worker_control: Literal["api", "supervisor", "none", "compose", "command", "metric"] = "api"
    release_limit_objects: int = Field(5000, ge=1, le=100_000)
    release_effect_s: float = Field(10, ge=0, description="an accepted request acts within")
    release_clock_spread_s: float = Field(5, ge=0, description="the store's nodes agree within")
    release_lease_s: float = Field(60, gt=0, description="a claim lapses after")
    release_undo_window_minutes: float = Field(15, gt=0)

    lag_threshold_minutes: float = Field(10, gt=0)
    lag_for_minutes: float = Field(5, ge=0)
    recovered_minutes: float = Field(5, gt=0)
    recovered_scrapes: int = Field(2, ge=1)
    timeline_stale_minutes: float = Field(15, gt=0)
    http_timeout_s: float = Field(5, gt=0, le=60)
    ca_bundle: Path | None = Field(None, description="certificates to trust, PEM; empty: certifi's")
    proxy_url: str = Field("", description="http://[user:password@]host:port; empty: none")

    @field_validator("pending_prefix", "ready_prefix", "chaos_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        if not value.endswith("/") or value.startswith("/") or "//" in value:
            raise ValueError("a prefix ends with one '/', and does not start with one")
        return value

    @field_validator("ready_prefix")
    @classmethod
    def _check_apart(cls, value: str, info: ValidationInfo) -> str:
        pending = str(info.data.get("pending_prefix", "\0"))
        if value.startswith(pending) or pending.startswith(value):
            raise ValueError("must be neither PENDING_PREFIX nor inside it nor around it")
        return value

    @field_validator("minio_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        if not value or "/" in value or "@" in value:
            raise ValueError("is host:port, without http:// (MINIO_SECURE=true means TLS)")
        return value

    @field_validator("runbook_environment")
    @classmethod
    def _unset_is_production(cls, value: str) -> str:
        return value if value.strip() else "production"

    @field_validator("runbook_operator")
    @classmethod
    def _check_operator(cls, value: str) -> str:
        name = _clean_name(value)
        if name.lower().startswith("drill:"):
            raise ValueError("may not begin with 'drill:', which is how drills approve")
        return name

    @field_validator("minio_change_password")
    @classmethod
    def _check_change_keys(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if bool(value.get_secret_value()) != bool(info.data.get("minio_change_user")):
            raise ValueError("set both MINIO_CHANGE_USER and MINIO_CHANGE_PASSWORD, or neither")
        return value

    @field_validator("label_finished")
    @classmethod
    def _check_finished(cls, value: str) -> str:
        if value not in ("shipment", "always") and not _METADATA.fullmatch(value):
            raise ValueError("is one of: shipment, metadata:<key>, always")
        return value.lower()

    @field_validator("order_id_from")
    @classmethod
    def _check_order_id_from(cls, value: str) -> str:
        if _METADATA.fullmatch(value):
            return value.lower()
        kind, _, pattern = value.partition(":")
        pattern = pattern or ORDER_ID_IN_KEY
        try:
            usable = len(pattern) <= _MAX_PATTERN_CHARS and re.compile(pattern).groups > 0
        except (re.error, OverflowError, RecursionError):
            usable = False
        if kind != "key" or not usable:
            raise ValueError(
                "is metadata:<key>, or key:<regex> with a group around the order id, "
                f"of at most {_MAX_PATTERN_CHARS} characters"
            )
        return f"key:{pattern}"

    @field_validator("release_lease_s")
    @classmethod
    def _check_lease(cls, value: float, info: ValidationInfo) -> float:
        effect_s, spread_s = (
            info.data.get(name, 0) for name in ("release_effect_s", "release_clock_spread_s")
        )
        if value <= effect_s + spread_s + 2:
            raise ValueError(
                "must be more than RELEASE_EFFECT_S + RELEASE_CLOCK_SPREAD_S + 2: every request "
                "must be over before the claim lapses"
            )
        return value

    @field_validator("dataflow_home", "ca_bundle", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator(*(f"{system}_url" for system in HTTP_SYSTEMS), "proxy_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        try:
            parts = urlsplit(value)
            usable = not value or (parts.hostname and parts.port != 0)
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("is not an address: http://host:port is")
        return value.rstrip("/")

    @field_validator("proxy_url")
    @classmethod
    def _check_proxy(cls, value: str) -> str:
        if value.startswith("https:"):
            raise ValueError("starts with http://: the proxy itself is spoken to without TLS")
        return value

    @property
    def operator(self) -> str:
        """Who approves and writes notes: ``RUNBOOK_OPERATOR``, else ``login@host``."""
        if self.runbook_operator:
            return self.runbook_operator
        try:
            login = getpass.getuser()
        except (OSError, KeyError, ImportError):
            login = "unknown"
        return _clean_name(f"{login}@{socket.gethostname()}")

    def read_store_keys(self, *, for_changes: bool) -> tuple[str, str, str]:
        """Return access key, secret key and session token, for looking or for changes."""
        if for_changes and self.minio_change_user:
            return self.minio_change_user, self.minio_change_password.get_secret_value(), ""
        first = (self.minio_root_password, self.minio_session_token)
        secret, token = (value.get_secret_value() for value in first)
        return self.minio_root_user, secret, token

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value that is set, for redaction."""
        fields = (getattr(self, name) for name in type(self).model_fields)
        values = (value for value in fields if isinstance(value, SecretStr))
        addresses = (getattr(self, n) for n in type(self).model_fields if n.endswith("_url"))
        in_addresses = (unquote(urlsplit(address).password or "") for address in addresses)
        return tuple(filter(None, (*(v.get_secret_value() for v in values), *in_addresses)))

    def read_http_options(self, system: str) -> dict[str, Any]:
        """Return address, credentials, certificates, proxy and time-out for a system's client.

        Parameters
        ----------
        system : one of ``HTTP_SYSTEMS``
        """
        token, password = (getattr(self, f"{system}_{name}") for name in ("token", "password"))
        return {
            "url": getattr(self, f"{system}_url"),
            "token": token.get_secret_value(),
            "user": getattr(self, f"{system}_user"),
            "password": password.get_secret_value(),
            "ca_file": str(self.ca_bundle or ""),
            "proxy_url": self.proxy_url,
            "timeout_s": self.http_timeout_s,
        }

    @property
    def is_playground(self) -> bool:
        """Whether chaos, faults and drills may run here, as far as the environment says."""
        return self.runbook_environment in ("local", "demo")


def load_settings() -> Settings:
    """Read the settings from the environment and ``.env``.

    Raises
    ------
    SettingsError
        When a value is malformed; names the variable, not the value.
    """
    root = find_root(Path.cwd())
    try:
        settings = Settings(_env_file=root / ".env")
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(p) for p in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError(f"{wrong}. See .env.example for what each setting means.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{root / '.env'} cannot be read ({type(error).__name__})") from None
    names = ("runbook_home", "runbook_stack_home", "ca_bundle")
    paths = {name: root / path for name in names if (path := getattr(settings, name)) is not None}
    bundle = paths.get("ca_bundle")
    if bundle is not None and not (os.access(bundle, os.R_OK) and bundle.is_file()):
        raise SettingsError("CA_BUNDLE is not a file that can be read. Empty: the usual ones.")
    return settings.model_copy(update=paths)


def find_root(folder: Path) -> Path:
    """Return the nearest folder at or above ``folder`` that holds ``.env`` or ``pyproject.toml``.

    Relative paths in settings are relative to it, so that a notebook started in ``notebooks/``
    and a command started at the top use the same incident folders. ``folder`` itself when none.
    """
    candidates = (folder, *folder.parents)
    marked = (f for f in candidates if (f / ".env").is_file() or (f / "pyproject.toml").is_file())
    return next(marked, folder)


def _clean_name(text: str) -> str:
    """Return a name that can stand in a line: nothing invisible, at most 100 characters."""
    return "".join(ch for ch in text if ch.isprintable()).strip()[:100]
