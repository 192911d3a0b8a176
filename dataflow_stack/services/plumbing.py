"""What all services share: settings, JSON log lines, request metrics, background loops."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    generate_latest,
)
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, SettingsConfigDict

from .clock import Clock, format_z

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ApiModel", "Loop", "ServiceSettings", "build_app", "configure_logging", "serve"]

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class ServiceSettings(BaseSettings):
    """The settings of every service; names in the environment begin with ``SERVICE_``."""

    model_config = SettingsConfigDict(
        env_prefix="SERVICE_", extra="ignore", frozen=True, populate_by_name=True
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    clock_offset_s: float = Field(0.0, description="seconds that this service's clock is ahead")

    @property
    def clock(self) -> Clock:
        """The service's clock."""
        return Clock(self.clock_offset_s)


class ApiModel(BaseModel):
    """A JSON body: snake case here, camel case on the wire; unknown names are refused."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True
    )


class _JsonFormatter(logging.Formatter):
    """One JSON object per line: ts, level, logger, msg, then the record's extra fields."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._offset_s = clock.offset_s

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created + self._offset_s, UTC)
        line: dict[str, object] = {
            "ts": format_z(at),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            line["exc"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(clock: Clock) -> None:
    """Send every logger's lines to standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonFormatter(clock))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class Loop:
    """Call a function again and again on a thread of its own, until stopped.

    An exception is logged with its traceback, and the loop goes on: a background job that
    dies silently would look like a service that has nothing to do.

    Parameters
    ----------
    name
        The thread's name and the logger of its failures.
    action
        What to do; it returns the seconds to wait until the next time.
    retry_s
        The wait after a failure.
    """

    def __init__(self, name: str, action: Callable[[], float], *, retry_s: float = 1.0) -> None:
        self._name, self._action, self._retry_s = name, action, retry_s
        self._stopped, self._woken = threading.Event(), threading.Event()

    def start(self) -> None:
        """Start the thread; it ends with the process at the latest."""
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def wake(self) -> None:
        """End the present wait early."""
        self._woken.set()

    def stop(self) -> None:
        """Ask the loop to end after its present action."""
        self._stopped.set()
        self._woken.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                wait_s = self._action()
            except Exception:
                logging.getLogger(self._name).exception("%s failed", self._name)
                wait_s = self._retry_s
            self._woken.wait(wait_s)


def build_app(
    name: str, *, clock: Clock, registry: CollectorRegistry, loops: Sequence[Loop] = ()
) -> FastAPI:
    """Build an app with ``/health``, ``/metrics``, counted requests and background loops."""
    disable_created_metrics()  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for loop in loops:
            loop.start()
        yield
        for loop in loops:
            loop.stop()

    app = FastAPI(title=name, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    requests_total = Counter(
        "http_requests_total", "HTTP requests", ["handler", "method", "status"], registry=registry
    )

    @app.middleware("http")
    async def count(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        status = 500
        try:
            response = await call_next(request)
            status = response.status_code
            response.headers["date"] = clock.http_date()
            return response
        finally:
            route = getattr(request.scope.get("route"), "path", "unmatched")
            requests_total.labels(route, request.method, str(status)).inc()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def serve(app: FastAPI, settings: ServiceSettings) -> None:
    """Serve the app until the process is told to end."""
    # The Date header comes from the service's own clock, so uvicorn must not add another.
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        date_header=False,
        timeout_graceful_shutdown=2,
    )
