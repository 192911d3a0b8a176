"""The settings of any runbook. Only this module reads the environment and ``.env``."""

import getpass
import inspect
import io
import os
import socket
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import SettingsError, list_problems
from .language import choose_language


class Settings(BaseSettings):
    """The settings of every runbook; a runbook's own class adds to them.

    Each field is an environment variable of the same name in capitals, which ``.env.example``
    explains. Names of addresses end with ``_URL``, those of credentials with ``_AUTH``.
    """

    # No reading would ever breach an infinite threshold.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    runbook_home: Path = Path("reports")
    runbook_environment: str = "production"
    runbook_operator: str = ""
    runbook_lang: Literal["en", "vi"] = "en"
    runbook_timezone: ZoneInfo | None = None
    http_timeout_s: float = Field(5, gt=0, le=60)
    ca_bundle: Path | None = None
    proxy_url: str = ""

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Read the settings, looking for ``.env`` from ``folder`` up, and choose their language.

        Raises SettingsError, which names the variable or the line, if one is malformed, or a file
        can't be read.
        """
        checkout = find_checkout(inspect.getfile(cls))
        root = find_root(folder or Path.cwd(), checkout)
        env_file = root / ".env"
        try:
            _check_lines(env_file)
            settings = cls(_env_file=env_file, **cls.read_old_names(env_file))
        except ValidationError as error:
            problems = list_problems(error).items()
            wrong = "; ".join(f"{name.upper()}: {why}".removeprefix(": ") for name, why in problems)
            raise SettingsError(f"{wrong}. See .env.example for what each setting means.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{env_file} cannot be read ({type(error).__name__})") from None
        paths = {name: root / value for name, value in settings if isinstance(value, Path)}
        # In a checkout, all notebooks and commands use one home, wherever you start them.
        paths["runbook_home"] = (checkout or root) / settings.runbook_home
        ca_bundle = paths.get("ca_bundle")
        if ca_bundle is not None and not os.access(ca_bundle, os.R_OK):
            raise SettingsError("CA_BUNDLE is not a readable file. Correct it, or leave it empty.")
        catalog = f"locale/{settings.runbook_lang}.po"
        catalogs = [
            Path(inspect.getfile(kind)).parent / catalog
            for kind in cls.__mro__
            if issubclass(kind, Settings)
        ]
        choose_language(*catalogs, zone=settings.runbook_timezone)
        return settings.model_copy(update=paths)

    @classmethod
    def read_old_names(cls, env_file: Path) -> dict[str, Any]:  # noqa: ARG003
        """Return the fields that only an old name sets; for runbooks that renamed some."""
        return {}

    @field_validator("runbook_operator")
    @classmethod
    def _check_operator(cls, value: str) -> str:
        """Clean the name, and refuse one with which only a drill may approve."""
        name = _clean_name(value)
        if name.lower().startswith("drill:"):
            raise ValueError("may not begin with 'drill:': only drills approve with such a name")
        return name

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object, info: ValidationInfo) -> object:
        """Replace an empty text by the default, for fields that may not be empty."""
        default = cls.model_fields[str(info.field_name)].default
        # If the default is None, empty means unset; as a path, it would be the current folder.
        must_not_be_empty = default is None or info.field_name == "runbook_environment"
        if must_not_be_empty and not str(value).strip():
            return default
        return value

    @field_validator("*")
    @classmethod
    def _check_url(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse an unusable address, and remove the last ``/``."""
        if not str(info.field_name).endswith("_url") or not value:
            return value
        try:
            url = urlsplit(value)
            is_usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
        except ValueError:
            is_usable = False
        if not is_usable:
            raise ValueError("is not an address such as http://host:port")
        if info.field_name == "proxy_url" and value.startswith("https:"):
            raise ValueError(
                "must start with http://, because the proxy itself is reached without TLS"
            )
        auth = str(info.field_name).replace("_url", "_auth")
        if auth in cls.model_fields and "@" in url.netloc:
            raise ValueError(f"contains credentials, which belong in {auth.upper()}")
        return value.rstrip("/")

    @property
    def operator(self) -> str:
        """The name that approves and writes notes: ``RUNBOOK_OPERATOR``, else ``login@host``."""
        if self.runbook_operator:
            return self.runbook_operator
        try:
            login = getpass.getuser()
        except (OSError, KeyError, ImportError):
            login = "unknown"
        return _clean_name(f"{login}@{socket.gethostname()}")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret to redact, including passwords in addresses."""
        secrets = []
        for name, value in self:
            if isinstance(value, SecretStr):
                secrets.append(value.get_secret_value())
            elif name.endswith("_url"):
                secrets.append(unquote(urlsplit(value).password or ""))
            if name.endswith("_auth"):
                credentials = value.get_secret_value().partition(" ")[2]
                secrets += [credentials, credentials.partition(":")[2]]
        return tuple(filter(None, secrets))

    @property
    def is_playground(self) -> bool:
        """Whether the environment allows chaos, faults and drills."""
        return self.runbook_environment in ("local", "demo")


def _check_lines(env_file: Path) -> None:
    """Refuse a ``.env`` with a malformed line, whose setting would silently keep its default."""
    text = env_file.read_text("utf-8") if env_file.exists() else ""
    for binding in parse_stream(io.StringIO(text)):  # a comment or a blank line has no key
        if binding.error or (binding.key is not None and binding.value is None):
            line = binding.original.line
            raise SettingsError(f"{env_file}, line {line}, is not NAME=value. Correct the line.")


def find_root(folder: Path, checkout: Path | None) -> Path:
    """Return the nearest folder with ``.env`` from ``folder`` up, else the checkout or ``~``."""
    env_file = find_env_file(folder)
    if env_file is not None:
        return env_file.parent
    return checkout or Path.home()


def find_env_file(folder: Path) -> Path | None:
    """Return the nearest ``.env`` in ``folder`` or above it, if any."""
    for candidate in (folder, *folder.parents):
        if (candidate / ".env").is_file():
            return candidate / ".env"
    return None


def find_checkout(module: str = __file__) -> Path | None:
    """Return the checkout that a package's module runs from; None if it's installed."""
    folder = Path(module).absolute().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def _clean_name(text: str) -> str:
    return "".join(ch for ch in text if ch.isprintable()).strip()[:100]
