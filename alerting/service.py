"""The service as one process: locks, database, jobs, web server."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI

from runbook_lib.errors import UsageError, disk_errors
from runbook_lib.redact import Redactor

from .book import Book, connect_database
from .look import Looker
from .metrics import Metrics
from .page import Page
from .settings import ServeSettings
from .targets import connect_targets
from .web import build_app
from .work import Bell, Planner, Work, configure, launch

#: So many requests at a time: each may hold a body.
_MOST_REQUESTS = 64
_STOP_S = 5
#: Any number that other programs of the database do not use.
_DATABASE_LOCK = 7_304_115


def serve(settings: ServeSettings) -> None:
    """Take alerts, investigate and deliver, until SIGTERM or Ctrl-C.

    Raises
    ------
    UsageError
        When another process serves the same folder or database.
    """
    home = settings.serve_home
    with disk_errors(f"cannot use {home}"):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _configure_log(settings)
    engine = connect_database(settings.database_url)
    with _hold_home(settings), _hold_database(engine):
        cooldown = timedelta(seconds=settings.serve_cooldown_s)
        book = Book(engine, cooldown=cooldown)
        metrics = Metrics(book)
        looker = Looker(settings)
        targets = connect_targets(settings)
        configure(settings)
        bell = Bell()
        work = Work(settings, book, looker=looker, targets=targets, metrics=metrics, bell=bell)
        planner = Planner(work, book, bell=bell, cooldown=cooldown)
        launch()
        planner.start()
        looker.get_ready()
        app = build_app(
            settings,
            book=book,
            work=work,
            planner=planner,
            metrics=metrics,
            page=Page(settings),
        )
        _serve(app, settings)
        looker.stop()
        logging.shutdown()
        sys.stdout.flush()
        # Threads of jobs may wait for an hour. Their steps go on after the next start.
        os._exit(0)


def _serve(app: FastAPI, settings: ServeSettings) -> None:
    """Serve the app until the process is told to end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn ends by them, and then raises them again.
        signal.signal(number, _ignore)
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


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the service is ending already."""


@contextmanager
def _hold_home(settings: ServeSettings) -> Iterator[None]:
    """Let one process serve a folder: two would carry out the same jobs."""
    with (settings.serve_home / "serve.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"another `runbook serve` works in {settings.serve_home}"
            raise UsageError(f"{text}. One is enough: stop it first.") from None
        yield


@contextmanager
def _hold_database(engine: sa.Engine) -> Iterator[None]:
    """Let one process use a database of Postgres, from whichever machine."""
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect() as db:
        query = sa.select(sa.func.pg_try_advisory_lock(_DATABASE_LOCK))
        if not db.execute(query).scalar_one():
            text = "another `runbook serve` works with the database of SERVE_DATABASE_URL"
            raise UsageError(f"{text}. One is enough: stop it first.")
        db.commit()
        yield


class _RedactingFormatter(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))


def _configure_log(settings: ServeSettings) -> None:
    """Send every line to stderr, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactingFormatter(Redactor(settings.secrets)))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
