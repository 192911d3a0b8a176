"""Make the bucket and its marker once, for docker compose: ``python -m dataflow_stack.seed``."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from .object_store import put_marker
from .store_client import build_client

__all__ = ["main"]


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    minio_endpoint: str
    minio_root_user: str
    minio_root_password: SecretStr
    minio_region: str = "us-east-1"
    fulfillment_bucket: str


def main() -> None:
    """Make bucket and marker; fails when the store refuses or does not answer."""
    settings = _Settings()
    client = build_client(
        settings.minio_endpoint,
        settings.minio_root_user,
        settings.minio_root_password.get_secret_value(),
        settings.minio_region,
    )
    put_marker(client, settings.fulfillment_bucket)


if __name__ == "__main__":
    main()
