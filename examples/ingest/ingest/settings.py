"""Where batches are, and when one is stuck."""

from pathlib import Path

from pydantic import Field, SecretStr

from runbook_lib import settings


class Settings(settings.Settings):
    """The settings of ``runbook_lib``, and those of the ingestion."""

    runbook_home: Path = Field(Path("reports/ingest"), validation_alias="INGEST_HOME")
    ingest_endpoint: str = "127.0.0.1:9000"
    ingest_secure: bool = Field(False, description="use TLS")
    ingest_bucket: str = "files"
    ingest_access_key: str = ""
    ingest_secret_key: SecretStr = SecretStr("")
    ingest_landing_prefix: str = Field("landing/", description="batches arrive here, as folders")
    ingest_archive_prefix: str = Field("archive/", description="the job moves batches here")
    ingest_complete_prefix: str = Field(
        "complete/", description="the producer writes an object of a batch's name when it is whole"
    )
    ingest_heartbeat: str = Field("heartbeat", description="the job writes it every minute")
    ingest_silent_minutes: float = Field(3, gt=0, description="no heartbeat for longer: stopped")
    ingest_stuck_minutes: float = Field(
        15, gt=0, description="a batch is stuck if no file of it was moved for longer"
    )
