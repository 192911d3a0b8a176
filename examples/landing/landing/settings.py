"""Where the landing zone is, how much fits into it, and what may leave."""

from pathlib import Path

from pydantic import Field, SecretStr

from runbook_lib import settings


class Settings(settings.Settings):
    """The settings of ``runbook_lib``, and those of the landing zone."""

    runbook_home: Path = Field(Path("reports/landing"), validation_alias="LANDING_HOME")
    landing_endpoint: str = "127.0.0.1:9000"
    landing_secure: bool = Field(False, description="use TLS")
    landing_bucket: str = "files"
    landing_access_key: str = ""
    landing_secret_key: SecretStr = SecretStr("")
    landing_prefix: str = Field("landing/", description="producers upload here")
    landing_processed_prefix: str = Field(
        "processed/", description="the processor writes an object of a file's name when it is done"
    )
    landing_cold_prefix: str = Field("cold/", description="processed files may go here")
    landing_quota_bytes: int = Field(100 * 10**9, gt=0, description="uploads are refused above it")
    landing_quota_objects: int = Field(1_000_000, gt=0, description="the same, in objects")
    landing_full_percent: float = Field(90, gt=0, le=100, description="full from here on")
    landing_hours_ahead: float = Field(4, gt=0, description="warn so long before it is full")
    landing_keep_hours: float = Field(24, gt=0, description="a younger file stays")
