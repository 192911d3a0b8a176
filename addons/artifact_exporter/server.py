"""The exporter's HTTP side: ``/metrics`` and ``/health``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from addons.artifact_exporter.metrics import BacklogCollector

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["make_app", "make_exporter_server"]


class _QuietHandler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Leave scrapes out of the log: one a second would bury its warnings."""


def make_app(collector: BacklogCollector, *, is_refreshing: Callable[[], bool]) -> WSGIApplication:
    """Make the WSGI application.

    ``/health`` is 200 with ``{"status": "ok"}`` once a refresh has ended, even in failure (a
    store that is down is not the exporter's ill health; ``lastFailure`` names it), and 503
    before that and when refreshing has stopped.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    metrics_app: WSGIApplication = make_wsgi_app(registry)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics_app(environ, start_response)
        if path != "/health":
            return _answer(start_response, "404 Not Found", {"detail": "Not Found"})
        last = collector.last_refresh
        failure = collector.last_failure
        status = "ok"
        if not is_refreshing():
            status = "stopped"
        elif last is None and not failure:
            status = "starting"
        refreshed_at = None
        if last is not None:
            refreshed_at = last.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document = {
            "status": status,
            "lastRefreshAt": refreshed_at,
            "lastFailure": failure or None,
        }
        code = "200 OK" if status == "ok" else "503 Service Unavailable"
        return _answer(start_response, code, document)

    return app


def make_exporter_server(app: WSGIApplication, *, host: str, port: int) -> WSGIServer:
    """Make a server that answers each request on a thread of its own; raises OSError."""
    return make_server(host, port, app, ThreadingWSGIServer, handler_class=_QuietHandler)


def _answer(start_response: StartResponse, code: str, document: object) -> Iterable[bytes]:
    body = json.dumps(document).encode()
    start_response(code, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
