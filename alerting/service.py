"""Put one process together: locks, database, jobs, and the web server."""

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
from typing import NamedTuple, NoReturn

import sqlalchemy as sa
import uvicorn
from dbos import DBOS
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
from .work import Bell, Planner, Work, configure

#: Requests at the same time. It limits the memory, because each may hold a whole body.
_MOST_REQUESTS = 64
#: How long requests may go on after the process was told to end.
_STOP_S = 5
#: The number of our lock in Postgres; other programs of the database must not use it.
_DATABASE_LOCK = 7_304_115


def serve(settings: ServeSettings) -> None:
    """Take alerts, investigate and deliver, until SIGTERM or Ctrl-C.

    Raises
    ------
    UsageError
        When another process serves the same folder or the same Postgres.
    """
    with _run_jobs(settings) as jobs:
        app = build_app(
            settings,
            book=jobs.book,
            work=jobs.work,
            planner=jobs.planner,
            metrics=jobs.metrics,
            page=Page(settings),
        )
        _serve_http(app, settings)
    _end_process()


def _end_process() -> NoReturn:
    """End the process without waiting for its threads: a job may sleep for long.

    Jobs that have not ended go on after the next start.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


class _Jobs(NamedTuple):
    """The parts of the process that carry out jobs."""

    looker: Looker
    book: Book
    metrics: Metrics
    work: Work
    planner: Planner


@contextmanager
def _run_jobs(settings: ServeSettings) -> Iterator[_Jobs]:
    """Carry out jobs. Begin with those that an earlier process left undone when it died.

    Raises
    ------
    UsageError
        When another process works in the folder, or in the same Postgres.
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
        configure(settings)
        bell = Bell()
        work = Work(
            settings,
            book,
            looker=looker,
            targets=connect_targets(settings),
            metrics=metrics,
            bell=bell,
        )
        planner = Planner(work, book, bell=bell, cooldown=cooldown)
        DBOS.launch()  # once all jobs are registered: unfinished ones go on
        planner.start()
        try:
            yield _Jobs(looker, book, metrics, work, planner)
        finally:
            looker.stop()


def _serve_http(app: FastAPI, settings: ServeSettings) -> None:
    """Serve the app over HTTP until SIGTERM or Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn ends by these signals, and sends them to this process again afterwards.
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
    """Do nothing on a signal that uvicorn sends again: the service is ending already."""


@contextmanager
def _hold_home(settings: ServeSettings) -> Iterator[None]:
    """Hold the folder's lock: two processes would carry out each job twice."""
    with (settings.serve_home / "serve.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"another `runbook serve` works in {settings.serve_home}"
            raise UsageError(f"{text}. One is enough: stop it first.") from None
        yield


@contextmanager
def _hold_database(engine: sa.Engine) -> Iterator[None]:
    """Hold a lock in Postgres, so that only one process uses the database, on whichever machine.

    SQLite gets no such lock. By default the folder's lock guards its file. If SERVE_DATABASE_URL
    names a SQLite file, no lock keeps processes of other folders from using it.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect() as db:
        query = sa.select(sa.func.pg_try_advisory_lock(_DATABASE_LOCK))
        if not db.execute(query).scalar_one():
            text = "another `runbook serve` works with the database of SERVE_DATABASE_URL"
            raise UsageError(f"{text}. One is enough: stop it first.")
        db.commit()  # the connection, not the transaction, holds the lock
        yield


class _RedactingFormatter(logging.Formatter):
    def __init__(self, redactor: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of the log, with secrets hidden."""
        return self._redactor.text(super().format(record))


def _configure_log(settings: ServeSettings) -> None:
    """Send every line of the log to stderr, without secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactingFormatter(Redactor(settings.secrets)))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
