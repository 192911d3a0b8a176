"""What the local stack is started with: settings, folders, ports."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from runbook_lib import settings as runbook_settings
from runbook_lib.errors import RunbookError, SettingsError

__all__ = ["PortTakenError", "Profile", "StackConfig", "StackError", "load_config", "read_kept"]

T = TypeVar("T")
Profile = Literal["demo", "rehearsal", "production"]


class StackError(RunbookError):
    """The local stack could not be started, stopped or asked; the text says what to do."""


class PortTakenError(SettingsError):
    """A port that the stack needs belongs to another process."""


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    runbook_stack_home: Path = Path(".stack")
    runbook_stack_port_base: int = Field(0, ge=0, le=50_000)
    runbook_home: Path = Path("reports")
    minio_root_user: str = Field("admin", min_length=3)
    minio_root_password: SecretStr = Field(SecretStr("admin12345"), min_length=8)
    minio_region: str = "us-east-1"
    fulfillment_bucket: str = "fulfillment-artifacts"
    pending_prefix: str = "pending/"
    ready_prefix: str = "ready/"
    chaos_prefix: str = "chaos/fulfillment-delay/"
    pipeline_dag_id: str = "fulfillment_release"


class _Kept(BaseModel):
    """How a stack was started last."""

    port_base: int
    profile: Profile
    serves: bool = False


def read_kept(file: Path, shape: type[T], default: T) -> T:
    """Return what the stack keeps in one of its files; without the file, the default.

    Raises
    ------
    StackError
        When the file is damaged.
    """
    try:
        return TypeAdapter(shape).validate_json(file.read_bytes())
    except FileNotFoundError:
        return default
    except (OSError, ValidationError) as error:
        advice = "`runbook stack down`, remove it, and start again: `runbook stack up`"
        raise StackError(f"{file} is damaged ({type(error).__name__}): {advice}") from error


@dataclass(frozen=True, slots=True)
class StackConfig:
    """One local stack.

    Attributes
    ----------
    home
        Its folder: data, logs, configuration, the supervisor's socket.
    port_base
        Added to every port.
    profile
        Which times Prometheus and Alertmanager get.
    settings
        The values that services and ``runbook`` read from the environment, by name.
    runbook_home
        Where `runbook serve` keeps incidents.
    serves
        Whether `runbook serve` runs beside the stack.
    """

    home: Path
    port_base: int
    profile: Profile
    settings: dict[str, str]
    runbook_home: Path
    serves: bool = False

    @property
    def conf(self) -> Path:
        """The supervisor's configuration."""
        return self.home / "supervisord.conf"

    @property
    def logs(self) -> Path:
        """One log file per service."""
        return self.home / "logs"

    @property
    def data(self) -> Path:
        """What survives a restart."""
        return self.home / "data"

    @property
    def run(self) -> Path:
        """Rendered configuration and locks; may be thrown away while the stack is down."""
        return self.home / "run"

    def with_profile(self, profile: Profile | None) -> StackConfig:
        """Return the stack with the times of a profile; None: as it is."""
        return replace(self, profile=profile) if profile else self

    def save(self) -> None:
        """Remember how the stack is started, so that later commands find it while it runs."""
        self.home.mkdir(parents=True, exist_ok=True)
        kept = {"port_base": self.port_base, "profile": self.profile, "serves": self.serves}
        text = json.dumps(kept)
        (self.home / "stack.json").write_text(text + "\n")

    def remembered(self) -> StackConfig:
        """Return the stack as it was started last; if it never was, as it is configured."""
        given = _Kept(port_base=self.port_base, profile=self.profile, serves=self.serves)
        kept = read_kept(self.home / "stack.json", _Kept, given)
        return replace(self, port_base=kept.port_base, profile=kept.profile, serves=kept.serves)


def load_config(home: Path | None = None, port_base: int | None = None) -> StackConfig:
    """Read the stack's settings from the environment and ``.env``; arguments come first.

    Raises
    ------
    SettingsError
        When a value is malformed; names the variable, not the value.
    """
    checkout = runbook_settings.find_checkout()
    root = runbook_settings.find_root(Path.cwd(), checkout)
    try:
        read = _Environment(_env_file=root / ".env")
    except ValidationError as error:
        items = error.errors(include_input=False, include_url=False)
        wrong = "; ".join(f"{str(i['loc'][0]).upper()}: {i['msg']}" for i in items)
        raise SettingsError(wrong) from None
    settings = {
        "MINIO_ROOT_USER": read.minio_root_user,
        "MINIO_ROOT_PASSWORD": read.minio_root_password.get_secret_value(),
        "MINIO_REGION": read.minio_region,
        "FULFILLMENT_BUCKET": read.fulfillment_bucket,
        "PENDING_PREFIX": read.pending_prefix,
        "READY_PREFIX": read.ready_prefix,
        "CHAOS_PREFIX": read.chaos_prefix,
        "PIPELINE_DAG_ID": read.pipeline_dag_id,
    }
    for name, value in settings.items():
        if '"' in value or "'" in value or "\n" in value:
            # supervisord's configuration has no way to write these in a value.
            raise SettingsError(f"{name} may not contain quotes or line breaks in a local stack")
    return StackConfig(
        home=(root / (home or read.runbook_stack_home).expanduser()).resolve(),
        port_base=read.runbook_stack_port_base if port_base is None else port_base,
        profile="demo",
        settings=settings,
        runbook_home=(checkout or root) / read.runbook_home,
    )
