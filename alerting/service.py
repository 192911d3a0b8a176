"""Put one process together: locks, database, jobs, and the web server.

``serve`` takes alerts over HTTP until it is told to end. ``answer`` takes the alerts of one file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn

import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI

from runbook_lib.errors import ExitCode, UsageError, disk_errors
from runbook_lib.redact import Redactor
from runbook_lib.run.documents import Document

from .airflow import AirflowClient, connect_airflow
from .book import Book, connect_database
from .look import Looker
from .metrics import Metrics
from .page import Page
from .payload import Alert, PayloadError, read_alerts
from .settings import ServeSettings
from .targets import ENDS, State, connect_targets
from .web import build_app
from .work import Bell, Planner, Work, configure, launch

#: Requests at the same time. It limits the memory, because each may hold a whole body.
_MOST_REQUESTS = 64
#: How long requests may go on after the process was told to end.
_STOP_S = 5
#: Time for one more attempt after the longest wait between two attempts.
_LAST_ATTEMPT_S = 20.0
#: The number of our lock in Postgres; other programs of the database must not use it.
_DATABASE_LOCK = 7_304_115


def serve(settings: ServeSettings) -> None:
    """Take alerts, investigate and deliver, until SIGTERM or Ctrl-C.

    Raises
    ------
    UsageError
        When another process serves the same folder or the same Postgres.
    """
    airflow = connect_airflow(settings)
    with _run_jobs(settings, "serve", airflow=airflow) as jobs:
        app = build_app(
            settings,
            book=jobs.book,
            work=jobs.work,
            planner=jobs.planner,
            metrics=jobs.metrics,
            page=Page(settings),
        )
        _serve_http(app, settings)
    end_process(0)


def answer(settings: ServeSettings, path: Path) -> AnswerDocument:
    """Investigate and deliver for the alerts of one file, as ``serve`` does; then return.

    Jobs of an earlier call that died are finished, too. If a target does not take a message, this
    call tries again until ``SERVE_RETRY_MAX_S`` plus 20 s after the look. The next call goes on.

    Parameters
    ----------
    path : a JSON list of alerts, each as in the payload of Alertmanager's webhook

    Raises
    ------
    UsageError
        When the file holds no such list, when another call works in this folder, or when any other
        process works in the same Postgres.
    """
    alerts = _read_file(path)
    if not settings.serve_database_url:
        own_url = f"sqlite:///{settings.serve_home / 'answer.sqlite3'}"
        settings = settings.model_copy(update={"serve_database_url": own_url})
    with _run_jobs(settings, "answer") as jobs:
        jobs.work.receive_with_resolved(alerts)
        jobs.planner.wait_until_done(patience_s=settings.serve_retry_max_s + _LAST_ATTEMPT_S)
        return make_answer(jobs.book, alerts[0])


def end_process(code: int) -> NoReturn:
    """End the process without waiting for its threads: a job may sleep for long.

    Jobs that have not ended go on after the next start.
    """
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


class AnswerDocument(Document):
    """The answer of ``serve --alerts``: what became of the messages of the newest look.

    If the file's alerts belong to two episodes (drills, and real alerts), only the episode of the
    file's first alert counts. ``incident`` is empty when there is no report. Each of ``deliveries``
    has ``target``, ``case``, ``state`` and ``detail``. ``is_done`` means that no later call would
    send one of these messages.
    """

    deliveries: tuple[dict[str, str], ...]
    is_done: bool


def make_answer(book: Book, alert: Alert) -> AnswerDocument:
    """Return the answer for the episode that an alert belongs to."""
    episode = book.find_episode(alert.key)
    if episode is None:
        raise UsageError("the alerts belong to no episode")
    # A look that failed before it had an incident names its messages after the episode.
    names = [f"episode-{episode.id}"]
    if episode.incident:
        names.append(episode.incident)
    deliveries = []
    for name in names:
        deliveries += book.list_deliveries(f"{name}-{episode.id}.{episode.looks}")
    is_sent = all(delivery.state in (State.SENT, State.REPEATED) for delivery in deliveries)
    rows = [
        {
            "target": delivery.target,
            "case": delivery.message["case"],
            "state": delivery.state,
            "detail": delivery.detail,
        }
        for delivery in deliveries
    ]
    return AnswerDocument(
        schema_name="runbook/serve-answer/1",
        incident=episode.incident,
        exit_code=ExitCode.OK if is_sent else ExitCode.NOT_OK,
        deliveries=tuple(rows),
        is_done=all(delivery.state in ENDS for delivery in deliveries),
    )


def _read_file(path: Path) -> list[Alert]:
    try:
        return read_alerts(path.read_bytes())
    except OSError as error:
        raise UsageError(f"--alerts {path}: {error.strerror}") from error
    except PayloadError as error:
        raise UsageError(f"--alerts {path}: {error}") from error


class _Jobs(NamedTuple):
    """The parts of the process that carry out jobs."""

    looker: Looker
    book: Book
    metrics: Metrics
    work: Work
    planner: Planner


@contextmanager
def _run_jobs(
    settings: ServeSettings, name: str, *, airflow: AirflowClient | None = None
) -> Iterator[_Jobs]:
    """Carry out jobs. Begin with those that an earlier process left undone when it died.

    Parameters
    ----------
    name : ``serve`` or ``answer``; in one folder, one process of each may run
    airflow : carries out looks and deliveries; None: this process does both itself

    Raises
    ------
    UsageError
        When another process of this name works in the folder, or any other process works in the
        same Postgres.
    """
    home = settings.serve_home
    with disk_errors(f"cannot use {home}"):
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _configure_log(settings)
    engine = connect_database(settings.database_url)
    with _hold_home(settings, name), _hold_database(engine):
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
            airflow=airflow,
        )
        planner = Planner(work, book, bell=bell, cooldown=cooldown)
        launch()
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
def _hold_home(settings: ServeSettings, name: str) -> Iterator[None]:
    """Hold the lock of ``serve`` or ``answer``: two processes would carry out each job twice."""
    with (settings.serve_home / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            command = "runbook serve" if name == "serve" else "runbook serve --alerts"
            text = f"another `{command}` works in {settings.serve_home}"
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
