"""The settings of ``runbook serve``: those of the runbook, and ``SERVE_…``."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Self

from dotenv import dotenv_values
from pydantic import field_validator, model_validator

from fulfillment import settings as runbook_settings
from runbook_lib.errors import SettingsError

_SHORTEST_TOKEN_CHARS = 16
_OLD = ("SERVE_SLACK_URL_FILE", "SERVE_TEAMS_URL_FILE", "SERVE_SMTP_URL_FILE")
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


class ServeSettings(runbook_settings.Settings):
    serve_address: str = "127.0.0.1:8115"
    serve_page_url: str = ""
    serve_token_file: Path | None = None
    serve_tls_cert_file: Path | None = None
    serve_tls_key_file: Path | None = None
    serve_targets_file: Path | None = None

    @field_validator("serve_address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        match = _HOST_PORT.fullmatch(value)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ValueError("must be host:port, such as 127.0.0.1:8115")
        return value

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        """Name all wrong settings at once."""
        wrong: list[str] = []
        if bool(self.serve_tls_cert_file) != bool(self.serve_tls_key_file):
            wrong.append("SERVE_TLS_KEY_FILE: set both it and SERVE_TLS_CERT_FILE, or neither")
        if not self.serve_token_file and not is_loopback(self.host):
            wrong.append(
                "SERVE_TOKEN_FILE: is needed because SERVE_ADDRESS can be reached from outside"
            )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @classmethod
    def read_old_names(cls, env_file: Path) -> dict[str, str]:
        """Refuse the settings that ``SERVE_TARGETS_FILE`` has replaced."""
        given = {**dotenv_values(env_file), **os.environ}
        if any(given.get(name) for name in _OLD):
            raise SettingsError(f"SERVE_TARGETS_FILE replaces {', '.join(_OLD)}: remove these")
        return super().read_old_names(env_file)

    def read_token(self) -> str:
        """Return the token, or ""; SettingsError when it can't be read or is weak."""
        token = _read_file("serve_token_file", self.serve_token_file)
        is_weak = len(token) < _SHORTEST_TOKEN_CHARS or not token.isascii()
        if self.serve_token_file and is_weak:
            raise SettingsError(
                f"SERVE_TOKEN_FILE: the token needs {_SHORTEST_TOKEN_CHARS} ASCII characters or "
                "more. Make one with: openssl rand -hex 32"
            )
        return token

    def read_targets(self) -> dict[str, str]:
        """Return the URLs in ``SERVE_TARGETS_FILE`` by name; skip comments (#).

        A name is the URL's scheme, such as ``slack``; if that is taken, with its position, as in
        ``slack-2``. Raises SettingsError when the file can't be read.
        """
        targets: dict[str, str] = {}
        for line in _read_file("serve_targets_file", self.serve_targets_file).splitlines():
            url = line.strip()
            if not url or url.startswith("#"):
                continue
            name, _, _ = url.partition(":")
            if name in targets:
                name = f"{name}-{len(targets) + 1}"
            targets[name] = url
        return targets

    @property
    def host(self) -> str:
        return self.serve_address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.serve_address.rpartition(":")[2])

    @property
    def own_url(self) -> str:
        scheme = "https" if self.serve_tls_cert_file else "http"
        return f"{scheme}://{self.serve_address}"

    @property
    def page_url(self) -> str:
        """The address of the page for links: ``SERVE_PAGE_URL``, else ``SERVE_ADDRESS``."""
        return self.serve_page_url or self.own_url

    @property
    def serve_home(self) -> Path:
        return self.runbook_home.resolve() / "serve"

    @property
    def lock_path(self) -> Path:
        """The file that ``runbook serve`` locks while it works in this home."""
        return self.serve_home / "serve.lock"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_file(name: str, path: Path | None) -> str:
    """Return the stripped text of the file that the setting ``name`` gives."""
    if path is None:
        return ""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{name.upper()} cannot be read: {why}.") from None
