"""This runbook's settings: its systems, what it may release, and its thresholds."""

import logging
import os
import re
import shlex
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, model_validator

from runbook_lib import settings as base

#: How DataFlow names a label: ``<order id>-<12 hex>.pdf``.
ORDER_ID_IN_KEY = r"^(\d+)-[0-9a-f]{12}\.\w+$"
#: Systems that many environments do not have. No verdict needs a step that reads them.
OPTIONAL = ("grafana", "probe", "notifications")
#: Systems with an HTTP API. Each has ``<SYSTEM>_URL`` and ``<SYSTEM>_AUTH``.
HTTP_SYSTEMS = ("prometheus", "alertmanager", "fulfillment", "support", "pipeline", *OPTIONAL)
#: The settings that must be set, for each value of ``WORKER_CONTROL`` that needs some.
_NEEDED = {
    "command": ("worker_status_cmd", "worker_stop_cmd", "worker_start_cmd"),
    "metric": ("worker_last_move_query",),
}
_AUTH_FORM = re.compile(r"Bearer [!-~]+|Basic [^:\n]+:[^\n]*")
_log = logging.getLogger(__name__)
_METADATA = r"metadata:[A-Za-z0-9._-]{1,100}"


def _must_match(pattern: str, message: str) -> AfterValidator:
    """Return a validator that refuses a text that doesn't match, with the message."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _check_order_id_from(value: str) -> str:
    """Check ``metadata:<key>``, ``key:<regex>`` or ``key``, which stands for DataFlow's regex."""
    if re.fullmatch(_METADATA, value):
        return value.lower()
    kind, _, pattern = value.partition(":")
    pattern = pattern or ORDER_ID_IN_KEY
    with suppress(re.error, OverflowError, RecursionError):
        if kind == "key" and re.compile(pattern).groups:
            return f"key:{pattern}"
    raise ValueError("is metadata:<key>, or key:<regex> with a group around the order id")


def _check_command(value: str) -> str:
    """Strip a command; refuse one that cannot be split into words."""
    try:
        shlex.split(value)
    except ValueError:
        raise ValueError("is not a list of words: a quote is not closed") from None
    return value.strip()


def is_nested(prefix: str, other: str) -> bool:
    """Tell whether two prefixes are the same, or one is inside the other."""
    return prefix.startswith(other) or other.startswith(prefix)


def _read_auth(auth: SecretStr) -> SecretStr:
    """Return the credentials, or those in the file if they are ``@FILE``."""
    text = auth.get_secret_value()
    if text.startswith("@"):
        file = base.find_root(Path.cwd(), base.find_checkout()) / text[1:]
        text = file.read_text("utf-8").strip() if os.access(file, os.R_OK) else text
    if text and not _AUTH_FORM.fullmatch(text):
        forms = (
            "'Bearer TOKEN', 'Basic user:password', or @FILE with a readable file that holds one"
        )
        raise ValueError(f"must be {forms}")
    return SecretStr(text)


@cache
def _warn_of_old_names(*names: str) -> None:
    """Log once which settings have old names."""
    if names:
        new = ", ".join(names).upper()
        _log.warning("set %s as .env.example says: the old names work in this version only", new)


_Auth = Annotated[SecretStr, AfterValidator(_read_auth)]
_Endpoint = Annotated[str, _must_match("[^/@]*", "is host:port only (MINIO_SECURE=true means TLS)")]
_Prefix = Annotated[str, _must_match("([^/]+/)+", "ends with one '/', and does not start with one")]
_FINISHED = _must_match(
    f"shipment|always|{_METADATA}", "is one of: shipment, metadata:<key>, always"
)
_Finished = Annotated[str, _FINISHED, AfterValidator(str.lower)]
_OrderIdFrom = Annotated[str, AfterValidator(_check_order_id_from)]
_Command = Annotated[str, AfterValidator(_check_command)]


class Settings(base.Settings):
    minio_endpoint: _Endpoint = ""
    minio_secure: bool = False
    minio_root_user: str = ""
    minio_root_password: SecretStr = SecretStr("")
    minio_session_token: SecretStr = SecretStr("")
    minio_change_user: str = ""
    minio_change_password: SecretStr = SecretStr("")
    minio_region: str = "us-east-1"
    minio_addressing: Literal["path", "virtual"] = "path"
    fulfillment_bucket: str = "fulfillment-artifacts"
    pending_prefix: _Prefix = "pending/"
    ready_prefix: _Prefix = "ready/"
    chaos_prefix: _Prefix = "chaos/fulfillment-delay/"
    release_parked_prefix: _Prefix = "parked/"

    prometheus_url: str = ""
    alertmanager_url: str = ""
    grafana_url: str = ""
    support_url: str = ""
    fulfillment_url: str = ""
    pipeline_url: str = ""
    pipeline_dag_id: str = "fulfillment_release"
    probe_url: str = ""
    notifications_url: str = ""
    ticket_url: str = ""
    panel_url: str = ""
    dag_url: str = ""
    query_url: str = ""

    prometheus_auth: _Auth = SecretStr("")
    alertmanager_auth: _Auth = SecretStr("")
    grafana_auth: _Auth = SecretStr("")
    support_auth: _Auth = SecretStr("")
    fulfillment_auth: _Auth = SecretStr("")
    pipeline_auth: _Auth = SecretStr("")
    probe_auth: _Auth = SecretStr("")
    notifications_auth: _Auth = SecretStr("")

    runbook_services: Literal["supervisor", "compose", "none"] = "none"
    runbook_stack_home: Path = Path(".stack")
    compose_cmd: str = "docker compose"
    dataflow_home: Path | None = None
    worker_service: str = "fulfillment-service"

    label_finished: _Finished = "shipment"
    order_id_from: _OrderIdFrom = "metadata:order-id"
    release_match: str = Field("*.pdf", min_length=1, max_length=200)
    worker_status_cmd: _Command = ""
    worker_stop_cmd: _Command = ""
    worker_start_cmd: _Command = ""
    worker_log_cmd: _Command = ""
    worker_last_move_query: str = ""
    worker_control: Literal["api", "supervisor", "none", "compose", "command", "metric"] = "none"
    release_limit_objects: int = Field(5000, ge=1, le=100_000)
    release_effect_s: float = Field(10, ge=0)
    release_clock_spread_s: float = Field(5, ge=0)
    release_lease_s: float = Field(60, gt=0)
    release_undo_window_minutes: float = Field(15, gt=0)

    lag_threshold_minutes: float = Field(10, gt=0)
    lag_for_minutes: float = Field(5, ge=0)
    recovered_minutes: float = Field(5, gt=0)
    recovered_scrapes: int = Field(2, ge=1)
    timeline_stale_minutes: float = Field(15, gt=0)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        """Refuse values that contradict each other; the message names every such setting."""
        wrong: list[str] = []
        if is_nested(self.pending_prefix, self.ready_prefix):
            wrong.append("READY_PREFIX: must be neither PENDING_PREFIX nor inside it nor around it")
        others = (self.pending_prefix, self.ready_prefix, self.chaos_prefix, ".runbook/")
        if any(is_nested(self.release_parked_prefix, other) for other in others):
            wrong.append(
                "RELEASE_PARKED_PREFIX: must be neither inside nor around PENDING_PREFIX, "
                "READY_PREFIX, CHAOS_PREFIX and .runbook/"
            )
        if bool(self.minio_change_user) != bool(self.minio_change_password):
            wrong.append("MINIO_CHANGE_PASSWORD: set both it and MINIO_CHANGE_USER, or neither")
        needed = _NEEDED.get(self.worker_control, ())
        missing = [name.upper() for name in needed if not getattr(self, name)]
        if missing:
            wrong.append(f"WORKER_CONTROL: {self.worker_control} needs {', '.join(missing)}")
        by_services = self.worker_control in ("compose", "supervisor")
        if by_services and self.worker_control != self.runbook_services:
            wrong.append(f"WORKER_CONTROL: needs RUNBOOK_SERVICES={self.worker_control}")
        # One second for the time in the signature, and one as a margin.
        longest_request_s = self.release_effect_s + self.release_clock_spread_s + 2
        if self.release_lease_s <= longest_request_s:
            wrong.append(
                "RELEASE_LEASE_S: must be more than RELEASE_EFFECT_S + RELEASE_CLOCK_SPREAD_S + 2: "
                "every request must be over before the lock lapses"
            )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @classmethod
    def read_old_names(cls, env_file: Path) -> dict[str, str]:
        """Return each ``_auth`` that is set only as ``_TOKEN``, or ``_USER`` and ``_PASSWORD``."""
        given = {**dotenv_values(env_file), **os.environ}
        replaced: dict[str, str] = {}
        for system in HTTP_SYSTEMS:
            names = [f"{system.upper()}_{part}" for part in ("AUTH", "TOKEN", "USER", "PASSWORD")]
            auth, token, user, password = [given.get(name) or "" for name in names]
            if token and not auth:
                replaced[f"{system}_auth"] = f"Bearer {token}"
            elif user and not auth:
                replaced[f"{system}_auth"] = f"Basic {user}:{password}"
        _warn_of_old_names(*replaced)
        return replaced

    def read_store_keys(self, *, for_changes: bool) -> tuple[str, str, str]:
        """Return access key, secret key and session token, to change or only to read.

        Without MINIO_CHANGE_USER, both are the same. It has no session token; that belongs to
        MINIO_ROOT_USER.
        """
        if for_changes and self.minio_change_user:
            return self.minio_change_user, self.minio_change_password.get_secret_value(), ""
        return (
            self.minio_root_user,
            self.minio_root_password.get_secret_value(),
            self.minio_session_token.get_secret_value(),
        )
