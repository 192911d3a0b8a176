"""Run the exporter: ``python -m addons.artifact_exporter``."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from datetime import UTC, datetime

from pydantic import ValidationError

from addons.artifact_exporter.inventory import ArtifactInventory
from addons.artifact_exporter.metrics import BacklogCollector
from addons.artifact_exporter.refresher import Refresher
from addons.artifact_exporter.server import make_app, make_exporter_server
from addons.artifact_exporter.settings import ExporterSettings
from addons.artifact_exporter.store import S3Store

__all__ = ["main"]

_log = logging.getLogger("artifact_exporter")


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code (2: a setting, 1: the port)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = ExporterSettings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            _log.error("setting %s: %s", name, problem["msg"])
        return 2
    try:
        store = S3Store(settings)
    except OSError as error:
        _log.error("CA_BUNDLE cannot be used: %s", error.strerror or error)
        return 2
    inventory = ArtifactInventory(
        store,
        waiting_prefixes=(settings.pending_prefix, settings.chaos_prefix),
        ready_prefix=settings.ready_prefix,
        clock=lambda: datetime.now(UTC),
    )
    collector = BacklogCollector(settings.exporter_refresh_s)
    refresher = Refresher(inventory, collector, interval_s=settings.exporter_refresh_s)
    app = make_app(collector, is_refreshing=lambda: refresher.is_alive)
    host = settings.exporter_host
    port = settings.exporter_port
    try:
        server = make_exporter_server(app, host=host, port=port)
    except OSError as error:
        _log.error("cannot listen on %s:%s (EXPORTER_PORT): %s", host, port, error)
        return 1

    def stop(_signum: int, _frame: object) -> None:
        # shutdown() waits for serve_forever(), which this very thread runs.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    refresher.start()
    _log.info("serving http://%s:%s/metrics", host, server.server_port)
    with server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
