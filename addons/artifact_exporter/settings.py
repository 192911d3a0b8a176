"""The exporter's settings: the same names in the environment as everywhere in the project."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["ExporterSettings"]


class ExporterSettings(BaseSettings):
    """What the exporter reads from the environment, and from nowhere else."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    exporter_host: str = "127.0.0.1"
    exporter_port: int = Field(default=8112, ge=0, le=65535)
    exporter_refresh_s: float = Field(default=15.0, gt=0)
    minio_endpoint: str = "127.0.0.1:9000"
    minio_secure: bool = False
    minio_region: str = "us-east-1"
    minio_root_user: str
    minio_root_password: SecretStr
    minio_session_token: SecretStr = SecretStr("")
    minio_addressing: Literal["path", "virtual"] = "path"
    ca_bundle: Path | None = None
    proxy_url: str = ""
    fulfillment_bucket: str = "fulfillment-artifacts"
    pending_prefix: str = "pending/"
    ready_prefix: str = "ready/"
    chaos_prefix: str = "chaos/fulfillment-delay/"
