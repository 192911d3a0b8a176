"""The settings of fulfillment-service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from ..plumbing import ServiceSettings

__all__ = ["FulfillmentSettings"]


class FulfillmentSettings(ServiceSettings):
    """Where the store, the carrier and the pipeline are, and how fast work is done."""

    database: Path
    worker_lock_file: Path = Field(description="held during a pass, so that only one runs")
    carrier_url: str = "http://127.0.0.1:8111"
    pipeline_url: str = "http://127.0.0.1:8110"
    pipeline_dag_id: str = Field("fulfillment_release", validation_alias="PIPELINE_DAG_ID")

    minio_endpoint: str = Field("127.0.0.1:9000", validation_alias="MINIO_ENDPOINT")
    minio_user: str = Field("", validation_alias="MINIO_ROOT_USER")
    minio_password: SecretStr = Field(SecretStr(""), validation_alias="MINIO_ROOT_PASSWORD")
    minio_region: str = Field("us-east-1", validation_alias="MINIO_REGION")
    bucket: str = Field("fulfillment-artifacts", validation_alias="FULFILLMENT_BUCKET")
    pending_prefix: str = Field("pending/", validation_alias="PENDING_PREFIX")
    ready_prefix: str = Field("ready/", validation_alias="READY_PREFIX")
    worker_prefix: str = Field("", description="what the worker watches; empty: PENDING_PREFIX")

    carrier_timeout_s: float = Field(2.0, gt=0)
    pipeline_timeout_s: float = Field(2.0, gt=0)
    feed_interval_s: float = Field(3.0, gt=0, description="seconds between two orders")
    feed_late_share: float = Field(0.02, ge=0, le=1, description="share of late hand-overs")
    label_threads: int = Field(4, ge=1, le=32)
    retry_s: float = Field(3.0, gt=0, description="wait before a failed upload is tried again")
    worker_interval_s: float = Field(0.5, gt=0)
    worker_batch: int = Field(8, ge=1, description="most objects moved in one pass")

    @property
    def watched_prefix(self) -> str:
        """The prefix that the worker watches."""
        return self.worker_prefix or self.pending_prefix
