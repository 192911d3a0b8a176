"""Where the inbox is, and when it is late."""

from pathlib import Path

from pydantic import Field, SecretStr

from runbook_lib import settings


class Settings(settings.Settings):
    """The settings of ``runbook_lib``, and those of the inbox.

    Each is an environment variable of the same name in capitals. Only ``runbook_home`` has another
    name: ``INBOX_HOME``.
    """

    runbook_home: Path = Field(Path("reports/inbox"), validation_alias="INBOX_HOME")
    inbox_endpoint: str = "127.0.0.1:9000"
    inbox_secure: bool = Field(False, description="use TLS")
    inbox_bucket: str = "files"
    inbox_access_key: str = ""
    inbox_secret_key: SecretStr = SecretStr("")
    inbox_prefix: str = "inbox/"
    inbox_retry_prefix: str = Field("retry/", description="the standby consumer takes from here")
    inbox_heartbeat: str = Field("heartbeat", description="the consumer writes it every minute")
    inbox_late_minutes: float = Field(10, gt=0, description="a file that waits longer is late")
    inbox_silent_minutes: float = Field(2, gt=0, description="no heartbeat for longer: silent")
