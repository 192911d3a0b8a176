"""The settings of ``runbook serve``: those of the runbook, and ``SERVE_…``."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from fulfillment import settings as runbook_settings
from runbook_lib.errors import SettingsError

#: Secrets that files hold: the setting ``…_file`` of the same name is the file's path.
_SECRETS_IN_FILES = (
    "serve_token",
    "serve_slack_url",
    "serve_teams_url",
    "serve_smtp_url",
)
_SHORTEST_TOKEN_CHARS = 16
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_MAIL_ADDRESS = re.compile(r"[^\s@<>,;]+@[^\s@<>,;]+")
_DATABASES = ("sqlite:///", "postgresql://", "postgres://")


class ServeSettings(runbook_settings.Settings):
    """Where alerts come in, how much is taken, and where reports go.

    Attributes
    ----------
    serve_token, serve_slack_url, serve_teams_url, serve_smtp_url : what the ``…_FILE`` of the same
        name holds; empty: not set. Only ``load`` reads the files
    """

    serve_address: str = Field("127.0.0.1:8115", description="host:port to listen on")
    serve_page_url: str = Field("", description="the page, as people reach it")
    serve_token_file: Path | None = Field(
        None, description="bearer token; needed unless SERVE_ADDRESS is loopback"
    )
    serve_tls_cert_file: Path | None = Field(None, description="certificate chain, PEM")
    serve_tls_key_file: Path | None = Field(None, description="the certificate's key, PEM")
    serve_body_limit_bytes: int = Field(1 << 20, ge=1024, le=64 << 20)
    serve_alert_limit: int = Field(1000, ge=1, le=100_000, description="most alerts in a body")
    serve_queue_limit: int = Field(1000, ge=1, le=1_000_000, description="most waiting alerts")
    serve_cooldown_s: float = Field(
        300, ge=0, description="least time between two looks at an episode"
    )
    serve_look_timeout_s: float = Field(300, gt=0, description="longest investigation")
    serve_retry_max_s: float = Field(300, gt=0, description="longest wait between two attempts")
    serve_give_up_minutes: float = Field(120, gt=0, description="longest time for one delivery")
    serve_database_url: str = Field("", description="empty: SQLite under RUNBOOK_HOME")
    serve_slack_url_file: Path | None = None
    serve_teams_url_file: Path | None = None
    serve_smtp_url_file: Path | None = Field(None, description="smtp[s]://[user:password@]host")
    serve_mail_from: str = ""
    serve_mail_to: str = Field("", description="addresses, separated by commas")

    serve_token: SecretStr = Field(SecretStr(""), exclude=True)
    serve_slack_url: SecretStr = Field(SecretStr(""), exclude=True)
    serve_teams_url: SecretStr = Field(SecretStr(""), exclude=True)
    serve_smtp_url: SecretStr = Field(SecretStr(""), exclude=True)

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Read the settings, and the secrets from the files that they name.

        Parameters
        ----------
        folder : where ``.env`` is looked for first; None: the current folder

        Raises
        ------
        SettingsError
            When a value is malformed or a file cannot be used. The text names the setting, and
            never shows the value.
        """
        settings = cls.load_without_files(folder)
        secrets = {}
        for name in _SECRETS_IN_FILES:
            setting = f"{name}_file"
            path = getattr(settings, setting)
            secret = _read_secret(setting, path) if path else ""
            secrets[name] = SecretStr(secret)
        settings = settings.model_copy(update=secrets)
        settings._check_secrets()
        return settings

    @classmethod
    def load_without_files(cls, folder: Path | None = None) -> Self:
        """Read the settings, but no secret files: for programs that deliver nothing."""
        return super().load(folder)

    @field_validator("*")
    @classmethod
    def _check_url(cls, value: object, info: ValidationInfo) -> object:
        """Check the database's address by its scheme, and leave secrets to ``_check_secrets``.

        The runbook's own rule applies to all other fields.
        """
        if info.field_name == "serve_database_url":
            if value and not str(value).startswith(_DATABASES):
                raise ValueError("must start with postgresql:// or sqlite:///")
            return value
        if isinstance(value, SecretStr):
            return value
        return super()._check_url(value, info)

    @field_validator("serve_address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        """Check that the address is a host and a port from 1 to 65535."""
        match = _HOST_PORT.fullmatch(value)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ValueError("must be host:port, such as 127.0.0.1:8115")
        return value

    @field_validator("serve_mail_from", "serve_mail_to")
    @classmethod
    def _check_mail(cls, value: str) -> str:
        """Check each mail address; return them joined by a comma and a space."""
        addresses = [part.strip() for part in value.split(",") if part.strip()]
        for address in addresses:
            if not _MAIL_ADDRESS.fullmatch(address) or not address.isprintable():
                raise ValueError("must be mail addresses, separated by commas")
        return ", ".join(addresses)

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        """Check settings that need each other; name all that are wrong at once."""
        wrong: list[str] = []
        if bool(self.serve_tls_cert_file) != bool(self.serve_tls_key_file):
            wrong.append("SERVE_TLS_KEY_FILE: set both it and SERVE_TLS_CERT_FILE, or neither")
        if not self.serve_token_file and not self.is_loopback:
            wrong.append(
                "SERVE_TOKEN_FILE: is needed because SERVE_ADDRESS can be reached from outside"
            )
        if self.serve_smtp_url_file and not (self.serve_mail_from and self.serve_mail_to):
            wrong.append("SERVE_MAIL_TO: SERVE_SMTP_URL_FILE needs it, and SERVE_MAIL_FROM")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _check_secrets(self) -> None:
        """Check the contents of the secret files, once ``load`` has read them."""
        token = self.serve_token.get_secret_value()
        is_weak = len(token) < _SHORTEST_TOKEN_CHARS or not token.isascii()
        if self.serve_token_file and is_weak:
            text = f"the token needs {_SHORTEST_TOKEN_CHARS} ASCII characters or more."
            make = "Make one with: openssl rand -hex 32"
            raise SettingsError(f"SERVE_TOKEN_FILE: {text} {make}")
        schemes = {
            "serve_slack_url": ("http", "https"),
            "serve_teams_url": ("http", "https"),
            "serve_smtp_url": ("smtp", "smtps"),
        }
        for name, allowed in schemes.items():
            address = getattr(self, name).get_secret_value()
            if address and not _is_address(address, allowed):
                words = " or ".join(f"{scheme}://" for scheme in allowed)
                raise SettingsError(
                    f"{name.upper()}_FILE: the file must hold one address, {words}…"
                )

    @property
    def host(self) -> str:
        """The host of ``serve_address``, without the brackets of an IPv6 address."""
        return self.serve_address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of ``serve_address``."""
        return int(self.serve_address.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def page_url(self) -> str:
        """The address of the page for links: ``SERVE_PAGE_URL``, else ``SERVE_ADDRESS``."""
        if self.serve_page_url:
            return self.serve_page_url
        scheme = "https" if self.serve_tls_cert_file else "http"
        return f"{scheme}://{self.serve_address}"

    @property
    def serve_home(self) -> Path:
        """The folder for the SQLite database and the lock files."""
        return self.runbook_home.resolve() / "serve"

    @property
    def database_url(self) -> str:
        """The database's address for SQLAlchemy; SQLite in ``serve_home`` if none is set."""
        if not self.serve_database_url:
            return f"sqlite:///{self.serve_home / 'serve.sqlite3'}"
        scheme, _, rest = self.serve_database_url.partition("://")
        if scheme == "sqlite":
            return self.serve_database_url
        return f"postgresql+psycopg://{rest}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret that is set, for redaction, with the passwords inside of addresses."""
        passwords = []
        for name in ("serve_smtp_url", "serve_database_url"):
            value = getattr(self, name)
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            passwords.append(unquote(urlsplit(text).password or ""))
        return (*super().secrets, *filter(None, passwords))


def _read_secret(name: str, path: Path) -> str:
    """Return a file's text, without spaces around it; ``name`` is the setting to blame."""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{name.upper()} cannot be read: {why}.") from None


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    """Tell whether a text is one address with a host and an allowed scheme."""
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or too large
        return False
    return has_host and parts.scheme in schemes and text.isprintable() and " " not in text
