"""Put one process together: lock, alerts, jobs, and the web server."""

import fcntl
import logging
import os
import signal
import sys
from typing import IO, NoReturn
from urllib.parse import unquote, urlsplit

import uvicorn
from fastapi import FastAPI

from runbook_lib.errors import UsageError, disk_errors
from runbook_lib.redact import Redactor

from .alerts import AlertBook
from .jobs import Jobs, configure
from .metrics import Metrics
from .page import Page
from .settings import ServeSettings
from .targets import connect_targets, isolate
from .web import build_app

#: Requests at the same time. Each may hold a whole body in memory.
_MOST_REQUESTS = 64
#: How long requests may take once the process must end.
_STOP_S = 5

_log = logging.getLogger(__name__)


def serve(settings: ServeSettings) -> None:
    """Take alerts, investigate and deliver, until SIGTERM or Ctrl-C.

    Raises UsageError when another process serves the same folder, and so the same database.
    """
    home = settings.serve_home
    with disk_errors(f"cannot use {home}"):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = settings.read_token()
    secrets = [*settings.secrets, token]
    for text in settings.read_targets().values():
        url = urlsplit(text)
        secrets += [text, unquote(url.password or ""), url.path, url.query]
    _configure_log(Redactor(secrets))
    with _lock_home(settings):
        isolate(settings)
        targets = connect_targets(settings)
        book = AlertBook(home / "jobs.sqlite3")
        metrics = Metrics(book, targets)
        configure(settings)
        # Not the log's: a report may name what a target's address holds, such as a channel.
        redactor = Redactor([*settings.secrets, token])
        jobs = Jobs(settings, book, targets=targets, metrics=metrics, redactor=redactor)
        jobs.start()
        page = Page(settings)
        app = build_app(token=token, book=book, jobs=jobs, metrics=metrics, page=page)
        names = ", ".join(targets) or "none"
        text = "runbook serve listens on %s and works in %s; targets: %s"
        _log.info(text, settings.serve_address, settings.runbook_home.resolve(), names)
        _serve_http(app, settings)
    _end_process()


def _end_process() -> NoReturn:
    """End the process without waiting for its threads: a job may sleep for long.

    Unfinished jobs resume after the next start.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _serve_http(app: FastAPI, settings: ServeSettings) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn ends by these signals, and sends them to this process again afterwards.
        signal.signal(number, signal.SIG_IGN)
    cert = settings.serve_tls_cert_file
    key = settings.serve_tls_key_file
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=str(cert) if cert else None,
        ssl_keyfile=str(key) if key else None,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_REQUESTS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_STOP_S,
        h11_max_incomplete_event_size=64 * 1024,
        ws="none",
    )


def _lock_home(settings: ServeSettings) -> IO[str]:
    """Return the folder's locked file: two processes would carry out each job twice."""
    file = settings.lock_path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        text = f"another `runbook serve` works in {settings.serve_home}"
        raise UsageError(f"{text}. One is enough: stop it first.") from None
    return file


class _RedactingFormatter(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))


def _configure_log(redactor: Redactor) -> None:
    """Send the log to stderr, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactingFormatter(redactor))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # At the level debug, Apprise logs the addresses that it asks, with their tokens.
    logging.getLogger("apprise").setLevel(logging.WARNING)
