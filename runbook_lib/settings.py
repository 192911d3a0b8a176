"""The only reader of the environment and of ``.env``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError

__all__ = ["Settings", "find_root", "load_settings"]


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
    minio_region: str = Field("us-east-1", description="region used in signatures")
    fulfillment_bucket: str = "fulfillment-artifacts"
    pending_prefix: str = "pending/"
    ready_prefix: str = "ready/"
    chaos_prefix: str = "chaos/fulfillment-delay/"

    prometheus_url: str = "http://127.0.0.1:9090"
    alertmanager_url: str = "http://127.0.0.1:9093"
    grafana_url: str = "http://127.0.0.1:3000"
    grafana_user: str = ""
    grafana_password: SecretStr = SecretStr("")
    support_url: str = "http://127.0.0.1:8109"
    fulfillment_url: str = "http://127.0.0.1:8108"
    pipeline_url: str = "http://127.0.0.1:8110"
    pipeline_dag_id: str = "fulfillment_release"
    pipeline_user: str = ""
    pipeline_password: SecretStr = SecretStr("")
    probe_url: str = Field("http://127.0.0.1:8113", description="synthetic probe; empty: none")
    notifications_url: str = Field(
        "", description="what receivers got, in the notification-sink's shape; empty: none"
    )

    runbook_home: Path = Path("reports")
    runbook_environment: str = "production"
    runbook_services: Literal["supervisor", "compose"] = "compose"
    runbook_stack_home: Path = Path(".stack")
    compose_cmd: str = "docker compose"
    compose_file: str = ""
    dataflow_home: Path | None = Field(None, description="a DataFlow checkout, for section 8")
    worker_service: str = Field("fulfillment-service", description="the worker's service name")

    lag_threshold_minutes: float = Field(10, gt=0)
    lag_for_minutes: float = Field(5, ge=0)
    recovered_minutes: float = Field(5, gt=0)
    recovered_scrapes: int = Field(2, ge=1)
    timeline_stale_minutes: float = Field(15, gt=0)
    http_timeout_s: float = Field(5, gt=0, le=60)

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

    @field_validator("dataflow_home", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator(
        "prometheus_url",
        "alertmanager_url",
        "grafana_url",
        "support_url",
        "fulfillment_url",
        "pipeline_url",
        "probe_url",
        "notifications_url",
    )
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

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value that is set, for redaction."""
        values = (self.minio_root_password, self.grafana_password, self.pipeline_password)
        addresses = (getattr(self, n) for n in type(self).model_fields if n.endswith("_url"))
        in_addresses = (unquote(urlsplit(address).password or "") for address in addresses)
        return tuple(filter(None, (*(v.get_secret_value() for v in values), *in_addresses)))

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
    return settings.model_copy(
        update={
            "runbook_home": root / settings.runbook_home,
            "runbook_stack_home": root / settings.runbook_stack_home,
        }
    )


def find_root(folder: Path) -> Path:
    """Return the nearest folder at or above ``folder`` that holds ``.env`` or ``pyproject.toml``.

    Relative paths in settings are relative to it, so that a notebook started in ``notebooks/``
    and a command started at the top use the same incident folders. ``folder`` itself when none.
    """
    candidates = (folder, *folder.parents)
    marked = (f for f in candidates if (f / ".env").is_file() or (f / "pyproject.toml").is_file())
    return next(marked, folder)
